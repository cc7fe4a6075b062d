"""Types and names of fields that envelopes have."""

REQUESTS = ("auth", "join", "leave", "publish", "call", "cancel", "history", "who", "ping")
NAMES = (
    *REQUESTS,
    "hello", "ok", "error", "message", "kicked", "gap", "position", "presence", "bye", "type", "id", "room", "data",
    "token", "timeout", "encoding", "base64", "publication_id", "limit", "after", "before", "epoch", "offset", "from",
    "state", "recovered", "messages", "members", "version", "count", "more", "code", "reason", "retry", "lost",
    "joined", "left", "user", "info", "connection", "ping_interval", "max_message_bytes",
)  # fmt: skip
