// A room at /all and an echo at /echo, on ws: node ws.js PORT
"use strict";

const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false });
const members = new Set();
const TEXT = { binary: false };

server.on("connection", (connection, request) => {
  connection.on("error", () => {});
  if (request.url === "/echo") {
    connection.on("message", (message) => connection.send(message, TEXT));
    return;
  }
  members.add(connection);
  connection.on("close", () => members.delete(connection));
  connection.on("message", (message) => {
    for (const member of members) member.send(message, TEXT);
  });
});

server.on("listening", () => console.log("serving"));
