"""The hosted pages: checkout (``/c/pay/…``), portal (``/p/session/…``), an invoice (``/i/…``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from html import escape
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from easel_local.stripe import checkout, portal, standing, timekeeping
from easel_local.stripe.api import bounded_body
from easel_local.stripe.cards import card_of_number
from easel_local.stripe.control import test_card
from easel_local.stripe.lines import money
from easel_local.stripe.objects import Obj
from easel_local.stripe.page import card_field, link, page, test_cards, warning
from easel_local.stripe.refusal import Refused
from easel_local.stripe.snapshot import Snapshot
from easel_local.stripe.world import World

_SEE_OTHER, _NOT_FOUND = 303, 404
_MAX_INVOICES = 12
_START = (
    "<h1>Nothing to pay here</h1><p>Pages to pay on are opened by the shop. Easel's gateway gives"
    " their addresses: <code>POST /v1/billing/checkout</code> for a plan or credits,"
    " <code>POST /v1/billing/portal</code> for cards and invoices.</p>"
    '<section class="card"><h2>Test cards</h2>'
)


class Pages:
    """Serves the pages of one world."""

    def __init__(self, world: World, snapshot: Snapshot) -> None:
        """Serve world."""
        self._world = world
        self._snapshot = snapshot

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            self._route("/", self._start, "GET"),
            self._route("/c/pay/{id}", self._checkout, "GET"),
            self._route("/c/pay/{id}", self._pay, "POST"),
            self._route("/p/session/{id}", self._portal, "GET"),
            self._route("/p/session/{id}", self._manage, "POST"),
            self._route("/i/{id}", self._invoice, "GET"),
        ]

    def _route(
        self, path: str, work: Callable[[Request], Awaitable[Response]], method: str
    ) -> Route:
        async def endpoint(request: Request) -> Response:
            timekeeping.catch_up(self._world)
            try:
                answer = await work(request)
            except Refused as refused:
                return _refusal(refused)
            await self._snapshot.save()
            return answer

        return Route(path, endpoint, methods=[method])

    async def _start(self, _request: Request) -> Response:
        return page("Test payments", f"{_START}{test_cards()}</section>")

    # --- checkout ---------------------------------------------------------------------------------

    async def _checkout(self, request: Request) -> Response:
        session = self._world.get("checkout.session", request.path_params["id"])
        return self._checkout_page(session)

    async def _pay(self, request: Request) -> Response:
        session = self._world.get("checkout.session", request.path_params["id"])
        if session["status"] != "open":
            return self._checkout_page(session)
        form = await _form(request)
        try:
            checkout.pay(self._world, session, test_card(form.get("card", "")))
        except Refused as refused:
            return self._checkout_page(session, refused.message, _known_card(form))
        url = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
        return RedirectResponse(url, _SEE_OTHER)

    def _checkout_page(self, session: Obj, problem: str = "", typed: str = "") -> Response:
        if session["status"] != "open":
            done = session["status"] == "complete"
            text = "This has been paid." if done else "This checkout has expired."
            back = session["success_url"] if done else session["cancel_url"]
            url = None if back is None else back.replace("{CHECKOUT_SESSION_ID}", session["id"])
            return page("Checkout", f"<h1>{text}</h1>{link(url, 'Back to the shop')}")
        what = "Subscribe" if session["mode"] == "subscription" else "Pay"
        total = money(session["amount_total"], session["currency"])
        body = (
            f"<h1>{what}</h1>"
            f'<section class="card" aria-label="Order">{self._order(session, total)}</section>'
            f'<form method="post" class="card">{card_field("Card number", problem, typed)}'
            f"<button>{what} {escape(total)}</button>{link(session['cancel_url'], 'Cancel')}</form>"
        )
        return page(f"{what} {total}", body, status=402 if problem else 200)

    def _order(self, session: Obj, total: str) -> str:
        rows = "".join(
            f"<tr><td>{escape(_times(item))}{self._rhythm(item)}</td>"
            f"<td>{escape(money(item['amount_total'], item['currency']))}</td></tr>"
            for item in session["_line_items"]
        )
        return (
            f"<table><tbody>{rows}</tbody><tfoot><tr><th scope=row>Due today</th>"
            f"<td>{escape(total)}</td></tr></tfoot></table>"
        )

    def _rhythm(self, item: Obj) -> str:
        recurring = self._world.get("price", item["price"])["recurring"]
        if recurring is None:
            return ""
        count, interval = recurring["interval_count"], recurring["interval"]
        every = f"every {interval}" if count == 1 else f"every {count} {interval}s"
        return f'<br><span class="soft">billed {every} until cancelled</span>'

    # --- the portal -------------------------------------------------------------------------------

    async def _portal(self, request: Request) -> Response:
        session = self._world.get("billing_portal.session", request.path_params["id"])
        return self._portal_page(session)

    async def _manage(self, request: Request) -> Response:
        session = self._world.get("billing_portal.session", request.path_params["id"])
        form = await _form(request)
        deed = form.get("do", "")
        try:
            if deed == "card":
                portal.replace_card(self._world, session, test_card(form.get("card", "")))
            elif deed in {"cancel", "resume"}:
                chosen = form.get("subscription", "")
                portal.set_cancel(self._world, session, chosen, cancel=deed == "cancel")
        except Refused as refused:
            return self._portal_page(session, refused.message, _known_card(form), deed=deed)
        return RedirectResponse(f"/p/session/{session['id']}", _SEE_OTHER)

    def _portal_page(
        self, session: Obj, problem: str = "", typed: str = "", *, deed: str = ""
    ) -> Response:
        owned = list(self._world.owned("subscription", session["customer"]))
        live = [one for one in owned if one["status"] not in standing.ENDED]
        subscriptions = "".join(map(self._subscription, live)) or "<p>No subscription.</p>"
        # said where the eye is: beside the field that a card was typed into
        of_card, of_other = (problem, "") if deed == "card" else ("", problem)
        field = card_field("New card number", of_card, typed)
        body = (
            f"<h1>Your subscription and payments</h1>{warning(of_other)}"
            f'<section class="card" aria-label="Subscription">{subscriptions}</section>'
            f'<section class="card"><h2>Card</h2>{self._card(session)}'
            f'<form method="post"><input type="hidden" name="do" value="card">'
            f'{field}<button class="second">Use this card</button></form></section>'
            f'<section class="card"><h2>Invoices</h2>{self._invoices(session)}</section>'
            f"{link(session['return_url'], 'Back')}"
        )
        return page("Subscription and payments", body, status=402 if problem else 200)

    def _subscription(self, subscription: Obj) -> str:
        item = subscription["items"]["data"][0]
        price = self._world.get("price", item["price"])
        name = self._world.get("product", price["product"])["name"]
        until = _day(item["current_period_end"])
        amount = money(price["unit_amount"] * item["quantity"], price["currency"])
        ends = subscription["cancel_at_period_end"]
        state = f"Ends on {until}" if ends else f"Renews on {until} for {amount}"
        deed, text = ("resume", "Keep it") if ends else ("cancel", "Cancel at the period's end")
        if subscription["status"] == "past_due":
            state = f"{state}. The last payment failed and is tried again; another card helps"
        problem = "" if subscription["status"] == "active" else f" ({subscription['status']})"
        return (
            f"<h2>{escape(name)}{escape(problem.replace('_', ' '))}</h2><p>{escape(state)}.</p>"
            f'<form method="post"><input type="hidden" name="do" value="{deed}">'
            f'<input type="hidden" name="subscription" value="{escape(subscription["id"])}">'
            f'<button class="second">{escape(text)}</button></form>'
        )

    def _card(self, session: Obj) -> str:
        customer = self._world.get("customer", session["customer"])
        card_id = customer.get("invoice_settings", {}).get("default_payment_method")
        for subscription in self._world.owned("subscription", session["customer"]):
            card_id = card_id or subscription["default_payment_method"]
        card = None if card_id is None else self._world.find("payment_method", card_id)
        if card is None:
            return "<p>No card.</p>"
        text = f"{card['card']['brand'].title()} ending in {card['card']['last4']}"
        return f"<p>{escape(text)}</p>"

    def _invoices(self, session: Obj) -> str:
        owned = list(self._world.owned("invoice", session["customer"]))[::-1]
        rows = "".join(
            f'<tr><td><a href="/i/{escape(invoice["id"])}">{_day(invoice["created"])}</a>'
            f' <span class="soft">{escape(invoice["status"])}</span></td>'
            f"<td>{escape(money(invoice['total'], invoice['currency']))}</td></tr>"
            for invoice in owned[:_MAX_INVOICES]
        )
        return f"<table>{rows}</table>" if rows else "<p>None yet.</p>"

    # --- an invoice -------------------------------------------------------------------------------

    async def _invoice(self, request: Request) -> Response:
        invoice = self._world.get("invoice", request.path_params["id"])
        currency = invoice["currency"]
        rows = "".join(
            f"<tr><td>{escape(line['description'])}</td>"
            f"<td>{escape(money(line['amount'], currency))}</td></tr>"
            for line in invoice["lines"]["data"]
        )
        title = f"Invoice {invoice['number'] or '(draft)'}"
        body = (
            f"<h1>{escape(title)}</h1><p>{_day(invoice['created'])}, {escape(invoice['status'])}"
            f'</p><section class="card"><table><tbody>{rows}</tbody><tfoot><tr>'
            f"<th scope=row>Total</th><td>{escape(money(invoice['total'], currency))}</td></tr>"
            "</tfoot></table></section>"
        )
        return page(title, body)


def _refusal(refused: Refused) -> Response:
    if refused.status == _NOT_FOUND:
        text = "Nothing is kept here under this address. Ask the shop for a new link."
        return page(
            "Not found", f"<h1>This link leads nowhere</h1><p>{text}</p>", status=_NOT_FOUND
        )
    text = f"<h1>This cannot be done</h1><p>{escape(refused.message)}</p>"
    return page("Refused", text, status=refused.status)


def _known_card(form: dict[str, str]) -> str:
    """The number that was typed, if it is a test card's; any other is forgotten."""
    card = card_of_number(form.get("card", ""))
    return "" if card is None else card.number


def _times(item: Obj) -> str:
    quantity = item["quantity"]
    return item["description"] if quantity == 1 else f"{quantity} x {item['description']}"


def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%d %B %Y").lstrip("0")


async def _form(request: Request) -> dict[str, str]:
    body = await bounded_body(request)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return {}
