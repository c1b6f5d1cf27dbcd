"""Billing on Postgres; all of its SQL.

Order of locks, the same everywhere: feed cursor, customer, account, hold, balance
(`credit_accounts`), lots.
"""
