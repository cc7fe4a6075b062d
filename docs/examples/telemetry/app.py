"""Telemetry: devices report over HTTP, dashboards watch - python app.py runs both, with devices made up."""

import json
import math
import random
import secrets
from pathlib import Path
from urllib.request import Request, urlopen

import trio

import trioroom

SITES = {"north": 1_000, "south": 1_000, "harbour": 400}  # devices
INTERVAL = 1.0  # seconds between two reports of a device


class Site(trioroom.Room):
    """What the devices of one site measure. A dashboard that is slow skips values, but never a device."""

    overflow = trioroom.Overflow.LATEST
    max_outbox_messages = 2_000  # more than a site has devices: then one value of each can wait

    async def authorize(self, member: trioroom.Member) -> None:
        if self.params["site"] not in SITES:
            raise trioroom.JoinRefused(f"there is no site {self.params['site']}")

    async def on_join(self, member: trioroom.Member) -> object:
        return {"devices": SITES[self.params["site"]]}

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        raise trioroom.RequestRefused("denied", "dashboards only watch; devices report over HTTP")


app = trioroom.App()
app.route("site/{site}", Site)
app.static("/", Path(__file__).with_name("page"))


# -- the devices, which would be programs of their own -----------------------------------------


def report(server: str, api_key: str, site: str, values: dict[int, float]) -> None:
    """Publish what a gateway has gathered of its devices: up to 1,000 values in one request."""
    publications = [
        {"room": f"site/{site}", "key": str(device), "data": [device, value]} for device, value in values.items()
    ]
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    body = json.dumps({"publications": publications}).encode()
    with urlopen(Request(f"{server}/api/v1/publish", body, headers), timeout=10) as answer:
        answer.read()


async def simulate(server: str, api_key: str, site: str) -> None:
    """Temperatures that wander, each near those of its neighbours."""
    noise = [random.uniform(-1, 1) for _ in range(SITES[site])]
    while True:
        now = trio.current_time() / 20
        values = {n: round(25 + 6 * math.sin(now + n / 90) + each, 1) for n, each in enumerate(noise)}
        try:
            await trio.to_thread.run_sync(report, server, api_key, site, values, abandon_on_cancel=True)
        except OSError as exc:  # a bad moment, or a refusal: the next values are newer anyway
            print(f"{site} was not reported: {exc}", flush=True)
        await trio.sleep(INTERVAL)


async def main(port: int = 8000) -> None:
    api_key = secrets.token_hex(16)
    async with trioroom.open_server(app, port=port, api_key=api_key) as server, trio.open_nursery() as nursery:
        address = f"http://127.0.0.1:{server.port}"
        for site in SITES:
            nursery.start_soon(simulate, address, api_key, site)
        print(f"dashboard: {address}/", flush=True)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:  # Ctrl-C; every task and socket is gone by now
        pass
