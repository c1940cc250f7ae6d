"""A server that plays OpenAI's chat completions: right, slow, busy, or talking nonsense, as a test says."""

import asyncio
import threading

from aiohttp import web
from patience import GUARD

GOOD = "apple (object): 1\ntable (object): 0\nFinal Score: 4"


class ChatEndpoint:
    """An HTTP server in a thread. `answers` are taken in turn, the last one again and again.

    An answer is the model's text, or a whole response; `seen` are the requests, as (headers, JSON).
    """

    def __init__(self):
        self.answers: list = [GOOD]
        self.seen: list[tuple[dict, dict]] = []
        self.delay = lambda request: 0.0  # seconds until the answer
        self.busy, self.most_busy = 0, 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.ready.wait(GUARD)

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self.complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())

    async def complete(self, request: web.Request) -> web.Response:
        question = await request.json()
        self.seen.append((dict(request.headers), question))
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        await asyncio.sleep(self.delay(question))
        self.busy -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = answer(question)
        if isinstance(answer, web.Response):
            return answer
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": answer}}]})

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(GUARD)
