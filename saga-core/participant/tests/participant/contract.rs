//! Tests that the participant's store on Postgres keeps the promises of the simulated store.

use crate::world::World;
use async_trait::async_trait;
use saga_messaging::consumer::BatchError;
use saga_test_support::{contract::participant::ParticipantBench, participant_store_contract};
use sqlx::{PgConnection, PgPool};

struct Postgres;

#[async_trait]
impl ParticipantBench for Postgres {
    type Store = PgPool;

    async fn store(&self) -> PgPool {
        World::new().await.pool
    }

    async fn write(&self, connection: &mut PgConnection, effect: &str) -> Result<(), BatchError> {
        sqlx::query("INSERT INTO effect (what) VALUES ($1)")
            .bind(effect)
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn effects(&self, store: &PgPool) -> Vec<String> {
        sqlx::query_scalar("SELECT what FROM effect ORDER BY what")
            .fetch_all(store)
            .await
            .unwrap()
    }
}

participant_store_contract!(Postgres, #[tokio::test]);
