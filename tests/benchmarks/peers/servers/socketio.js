// Socket.IO events "all" and "echo", on socket.io: node socketio.js PORT
"use strict";

const { createServer } = require("node:http");
const { Server } = require("socket.io");

const NO_HEARTBEAT = 3_600_000; // milliseconds: pings cannot be switched off, and other servers here send none

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
  pingInterval: NO_HEARTBEAT,
});

// The handbook's own advice for less memory: nobody here needs the request of the handshake afterwards.
io.engine.on("connection", (connection) => {
  connection.request = null;
});

io.on("connection", (member) => {
  member.on("all", (message) => io.emit("all", message));
  member.on("echo", (message) => member.emit("echo", message));
});

http.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("serving"));
