#!/bin/sh
# A role and a schema of the same name for each service, and no way across.
# Idempotent: run at each start by the one-off service `database` of docker-compose.yml.
# Needs PGHOST, PGUSER, PGPASSWORD, PGDATABASE of the superuser, and <SERVICE>_DATABASE_PASSWORD.
# Waits for Postgres up to a minute: `docker compose restart` starts both at once.
set -eu

left=60
until pg_isready -q; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || { echo "Postgres at ${PGHOST:-its socket} does not answer" >&2; exit 1; }
  sleep 1
done

for role in billing gateway scheduler; do
  variable=$(echo "$role" | tr '[:lower:]' '[:upper:]')_DATABASE_PASSWORD
  password=$(printenv "$variable") || { echo "$variable is not set" >&2; exit 2; }
  psql -q -X -v ON_ERROR_STOP=1 -v role="$role" -v password="$password" <<'SQL'
SET client_min_messages = warning;
SELECT format('CREATE ROLE %I LOGIN', :'role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" PASSWORD :'password';
ALTER ROLE :"role" SET search_path = :"role";
CREATE SCHEMA IF NOT EXISTS :"role" AUTHORIZATION :"role";
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), :'role') \gexec
SQL
done
