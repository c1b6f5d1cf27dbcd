"""The gateway's rows in Postgres, schema `gateway`."""
