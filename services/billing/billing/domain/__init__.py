"""Plain data and pure rules of billing: plans, prices, periods, holds, the ledger."""
