//! The engine's store on Postgres keeps the promises that the simulated one keeps.

use crate::fixture::Database;
use async_trait::async_trait;
use orchestrator::{
    registry::Source,
    store::{PgStore, definition},
};
use saga_core::definition::SagaDefinition;
use saga_testkit::{contract::saga::SagaBench, saga_store_contract};

struct Postgres;

#[async_trait]
impl SagaBench for Postgres {
    type Store = PgStore;

    async fn store(&self, of: &SagaDefinition) -> PgStore {
        let store = Database::new().await.store;
        let source = Source {
            file: "contract.yaml".to_owned(),
            definition: of.clone(),
        };
        definition::register(store.pool(), &[source]).await.unwrap();
        store
    }
}

saga_store_contract!(Postgres, #[tokio::test]);
