import trio
from chat import app
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import trioroom


async def main(port: int = 8000) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "chat"}))
    provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    async with trioroom.open_server(app, port=port, tracer_provider=provider) as server:
        print(f"serving ws://127.0.0.1:{server.port}/chat/lobby")
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
