"""What your login does once it knows who somebody is - python issue_token.py ann lobby kitchen"""

import os
import sys
import time

import jwt


def issue(user: str, rooms: list[str], seconds: float = 300) -> str:
    """A token that is good for a few minutes: clients call for another one in time."""
    claims = {
        "iss": "https://login.example",
        "aud": "chat",
        "sub": user,
        "exp": time.time() + seconds,
        "rooms": rooms,
    }
    return jwt.encode(claims, os.environ["CHAT_SECRET"], algorithm="HS256")


if __name__ == "__main__":
    print(issue(sys.argv[1], sys.argv[2:]))
