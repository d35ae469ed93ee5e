# Creates a role and a database for each service. No service's role may connect to another service's database. The entry
# point of the Postgres image sources this script in its own shell at the first start.
for name in orchestrator orders inventory payments; do
  psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" --set password="${SAGA_ROLE_PASSWORD:?}" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
