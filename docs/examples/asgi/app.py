"""A web application and its rooms in one process: orders come by HTTP, the kitchen sees them at once - python app.py"""

import signal
from functools import partial
from pathlib import Path
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import Framework
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import trioroom

PAGE = Path(__file__).with_name("page.html").read_text("utf-8")

# -- the rooms ----------------------------------------------------------------------------------


class Kitchen(trioroom.Room):
    """Shows the orders, the latest fifty also to who comes later."""

    history = trioroom.History(size=50, ttl=3600)

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        raise trioroom.RequestRefused("denied", "orders come by HTTP")


rooms = trioroom.App()
rooms.route("kitchen", Kitchen)


# -- the web application, which knows the rooms by name -----------------------------------------


async def take_order(request: Request) -> Response:
    try:
        order = await request.json()
    except ValueError:
        order = None
    match order:
        case {"table": int(table), "dish": str(dish)} if 0 < table < 1_000 and 0 < len(dish) <= 100:  # kept for all
            await rooms.publish("kitchen", {"table": table, "dish": dish})  # the same loop, so it is simply awaited
            return JSONResponse({"ordered": dish}, status_code=201)
    return JSONResponse({"error": 'send {"table": 7, "dish": "soup"}'}, status_code=400)


async def show_page(request: Request) -> Response:
    return HTMLResponse(PAGE.replace("ROOMS", request.app.state.rooms))


web = Starlette(routes=[Route("/", show_page), Route("/orders", take_order, methods=["POST"])])


# -- both ---------------------------------------------------------------------------------------


async def wait_for_ctrl_c() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return


async def main(web_port: int = 8000, rooms_port: int = 8001) -> None:
    web.state.rooms = f"http://127.0.0.1:{rooms_port}"
    origin = f"http://127.0.0.1:{web_port}"  # from which pages may come to the rooms, as it is not their own
    config = Config.from_mapping(bind=[f"127.0.0.1:{web_port}"])
    async with (
        trioroom.open_server(rooms, port=rooms_port, settings=trioroom.Settings(allowed_origins=(origin,))),
        trio.open_nursery() as nursery,
    ):
        serve_web = partial(serve, cast(Framework, web), config)  # both mean ASGI, each in types of its own
        await nursery.start(partial(serve_web, shutdown_trigger=wait_for_ctrl_c))
        print(f"kitchen: {origin}/", flush=True)
    # Ctrl-C ends Hypercorn, and with it the nursery; then the rooms say goodbye to their members.


if __name__ == "__main__":
    trio.run(main)
