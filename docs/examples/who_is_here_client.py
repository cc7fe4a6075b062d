"""The client's side: a list that follows pages and pushes."""

from typing import Any


class WhoIsHere:
    """Give it what comes of one room, in order; send what it returns, if anything."""

    def __init__(self, room: str) -> None:
        self.room = room
        self.count = 0
        self.users: dict[str, object] = {}

    def ask(self) -> dict[str, Any]:
        """Send this when the join has been answered."""
        self.users.clear()
        return {"type": "who", "id": "who", "room": self.room}

    def receive(self, envelope: dict[str, Any]) -> dict[str, Any] | None:
        if envelope["type"] == "ok" and envelope["id"] == "who":
            self.count = envelope["count"]
            self._add(envelope["members"])
            if envelope["more"]:
                return {"type": "who", "id": "who", "room": self.room, "after": envelope["members"][-1]["user"]}
        elif envelope["type"] == "presence":
            self.count = envelope["count"]
            if "joined" not in envelope:  # more has changed than is worth listing
                return self.ask()
            self._add(envelope["joined"])
            for user in envelope["left"]:
                self.users.pop(user, None)
        return None

    def _add(self, members: list[dict[str, Any]]) -> None:
        self.users.update({member["user"]: member.get("info") for member in members})
