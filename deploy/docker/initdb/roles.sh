# Run by the Postgres image at its first start, in a shell of its own: a role and a database for each service, each closed
# to the others.
for name in orchestrator orders inventory payments; do
  psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" --set password="${SAGA_ROLE_PASSWORD:?}" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
