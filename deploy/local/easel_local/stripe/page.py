"""The look of the hosted pages: plain HTML, no script, nothing from elsewhere, all text escaped."""

from __future__ import annotations

import secrets
from html import escape

from starlette.responses import HTMLResponse

from easel_local.stripe.cards import CARDS

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1f36; --soft: #5b6478; --line: #d8dce6;
  --ground: #f5f6fa; --card: #fff; --deed: #4b44d6; --on-deed: #fff; --warn: #8a2c0d;
  --warn-ground: #fdf0ea; --note: #5a4300; --note-ground: #fff5d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceef5; --soft: #a5adc0; --line: #3a4056;
  --ground: #12141c; --card: #1b1e2a; --deed: #8f8aff; --on-deed: #12141c; --warn: #ffb59c;
  --warn-ground: #3a1d12; --note: #f3d98a; --note-ground: #2f2710; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 30rem; margin: 0 auto; padding: 2rem 1rem 3rem; }
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .5rem 0; }
.note, .warn { border-radius: .5rem; padding: .6rem .9rem; margin: 0 0 1.5rem; font-size: .9rem; }
.note { background: var(--note-ground); color: var(--note); }
.warn { background: var(--warn-ground); color: var(--warn); border: 1px solid currentColor; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: 1.25rem; margin: 0 0 1rem; }
.card > :first-child { margin-top: 0; } .card > :last-child { margin-bottom: 0; }
.card > .warn { margin-bottom: 1rem; }
.soft { color: var(--soft); font-size: .9rem; }
table { width: 100%; border-collapse: collapse; }
td, th { padding: .45rem 0; text-align: left; font-weight: inherit; vertical-align: top; }
td:last-child, th:last-child { text-align: right; white-space: nowrap; padding-left: 1rem; }
tr + tr > *, tfoot > tr > * { border-top: 1px solid var(--line); }
tfoot { font-weight: 650; font-size: 1.1rem; }
label { display: block; font-weight: 600; margin: 0 0 .3rem; }
input { width: 100%; font: inherit; color: inherit; background: var(--ground);
  border: 1px solid var(--soft); border-radius: .5rem; padding: .65rem .75rem;
  font-variant-numeric: tabular-nums; }
[aria-invalid] { border-color: var(--warn); }
button, .button { display: block; width: 100%; font: inherit; font-weight: 600; cursor: pointer;
  border-radius: .5rem; padding: .7rem 1rem; margin: .9rem 0 0; border: 1px solid var(--deed);
  background: var(--deed); color: var(--on-deed); text-align: center; text-decoration: none; }
.second { background: transparent; color: var(--ink); border-color: var(--soft); }
a { color: inherit; }
:focus-visible { outline: 3px solid var(--deed); outline-offset: 2px; }
details { margin: .9rem 0 0; } summary { cursor: pointer; }
code { font-size: .95em; white-space: nowrap; }
main > p { margin-bottom: 1rem; }
"""


def page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    """A whole page; body is HTML, title is text.

    Its policy lets nothing load and no script run; forms go to the page's own origin, and on to
    wherever it then redirects.
    """
    nonce = secrets.token_urlsafe(16)
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f'<style nonce="{nonce}">{_STYLE}</style></head><body><main>'
        '<p class="note"><strong>Test payments.</strong> This page stands in for Stripe on this'
        " machine. It takes no real money. Never type a real card number.</p>"
        f"{body}</main></body></html>"
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(html, status_code=status, headers=headers)


def warning(text: str) -> str:
    """A message that a screen reader reads at once; empty for no text."""
    return f'<p class="warn" role="alert" id="problem">{escape(text)}</p>' if text else ""


def card_field(label: str, problem: str = "", typed: str = "") -> str:
    """The field for a test card's number, under what was wrong with the last one.

    Args:
        label: of the field.
        problem: empty when nothing was wrong.
        typed: the test card's number that was sent; empty for none and for any other number,
            which must not come back on a page.
    """
    described = "problem cards" if problem else "cards"
    invalid = ' aria-invalid="true" autofocus' if problem else ""
    shown = " open" if problem and not typed else ""
    return (
        f'{warning(problem)}<label for="card">{escape(label)}</label>'
        '<input id="card" name="card" inputmode="numeric" autocomplete="off" required'
        f' maxlength="30" value="{grouped(typed or CARDS[0].number)}"'
        f' aria-describedby="{described}"{invalid}>'
        f'<details{shown}><summary class="soft">Test cards</summary>{test_cards()}</details>'
    )


def test_cards() -> str:
    """What can be typed, and what comes of it."""
    rows = "".join(
        f"<tr><td><code>{grouped(card.number)}</code></td><td>{escape(card.does)}</td></tr>"
        for card in CARDS
    )
    return f'<table class="soft" id="cards">{rows}</table>'


def grouped(number: str) -> str:
    """A card's number as it is printed on cards."""
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))


def link(url: str | None, text: str) -> str:
    """A link that looks like a button; nothing without a URL."""
    if url is None:
        return ""
    return f'<a class="button second" href="{escape(url)}">{escape(text)}</a>'
