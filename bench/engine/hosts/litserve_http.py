"""LitServe with stock diffusers inside: its batches are drawn in groups of equal settings.

It reads annotations as they are, so they are not put off here.
"""

from argparse import Namespace
from collections.abc import Sequence

import litserve
from PIL import Image

from bench.engine.batching import groups
from bench.engine.pictures import answer
from bench.engine.protocol import arguments, settle
from bench.engine.stock import Stock
from bench.engine.trace import Request


class Painter(litserve.LitAPI):  # type: ignore[misc] # it is in an environment of its own
    """What LitServe's worker process does with a batch."""

    def __init__(self, told: Namespace) -> None:
        """Nothing is loaded before `setup`, in the worker."""
        super().__init__(max_batch_size=told.batch, batch_timeout=told.window_s)
        self._told = told
        self._stock: Stock | None = None

    def setup(self, device: str) -> None:
        """Loads and warms the pipelines."""
        del device
        settle()
        self._stock = Stock(self._told.models_dir, self._told.models)
        self._stock.warm_up()

    def decode_request(self, request: Request) -> Request:
        """FastAPI has read the body already, as in our own server."""
        return request

    def batch(self, inputs: Sequence[Request]) -> Sequence[Request]:
        """A batch stays a list: requests are no arrays."""
        return inputs

    def predict(self, x: Sequence[Request]) -> list[Image.Image]:
        """The pictures, in the order of the requests."""
        assert self._stock is not None  # noqa: S101 (LitServe calls setup first)
        found: dict[int, Image.Image] = {}
        for places in groups(x, lambda asked: asked.settings):
            images = self._stock.draw([x[place] for place in places])
            found |= dict(zip(places, images, strict=True))
        return [found[place] for place in range(len(x))]

    def unbatch(self, output: list[Image.Image]) -> list[Image.Image]:
        """One picture for each request."""
        return output

    def encode_response(self, output: Image.Image) -> dict[str, str]:
        """The same answer as ours."""
        return answer(output)


def _main() -> None:
    told = arguments("litserve")
    server = litserve.LitServer(Painter(told), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=told.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    _main()
