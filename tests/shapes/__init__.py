"""An independent judge of the built-in model: does a picture fit its caption, by pixels alone?

It shares no code with the training: palette, outlines and caption grammar are its own.
"""

from tests.shapes.caption import Caption, Wanted, parse_caption
from tests.shapes.verdict import Verdict, check
from tests.shapes.vision import Seen, Sight, look

__all__ = ["Caption", "Seen", "Sight", "Verdict", "Wanted", "check", "look", "parse_caption"]
