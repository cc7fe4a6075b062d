"""Serve wss:// - python tls_server.py cert.pem key.pem"""

import ssl
import sys

import trio
from chat import app

import trioroom


async def main(certificate: str, key: str, port: int = 8443) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with trioroom.open_server(app, host="127.0.0.1", port=port, ssl_context=context) as server:
        print(f"wss://127.0.0.1:{server.port}/chat/lobby")
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
