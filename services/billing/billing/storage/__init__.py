"""Billing on Postgres; all of its SQL.

Order of locks, the same everywhere: feed cursor, account, hold, balance (`credit_accounts`), lots,
audit stream.
"""
