"""``trioroom bench``: load for a WebSocket server, from several processes, and what came of it.

`conductor` starts the processes and tells them what to do next; each is a `generator`, which plays a scenario of
`scenarios` on the connections of its `swarm`. What they counted comes together in a `result`, shown as a table, as
JSON and as a page.
"""
