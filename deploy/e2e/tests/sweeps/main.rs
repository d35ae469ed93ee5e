//! Sweeps on real servers: for every shipped definition, one saga for every single thing that can go wrong. Each saga
//! must leave a clean slate.
//!
//! Kafka, Postgres, the orchestrator (as a process) and the participants' library with its databases are real. Two
//! parts are scripted: the participants' handlers ([`participants`]), which fail and err as a saga's script says, and
//! the relay between them and the orchestrator ([`relay`]), in which a script duplicates, delays or drops messages. The
//! definitions are the shipped ones with shorter times ([`definitions`]): hundreds of sagas are in flight at once, and
//! the slowest, with ten silent attempts, determines how long the sweep takes.
//!
//! `orchestrator/tests/sweeps` runs the same sweep without servers, over thousands of sagas in a moment.

mod cases;
mod definitions;
mod participants;
mod relay;
mod run;
mod script;
mod slate;
mod stage;
mod stories;

use anyhow::Result;
use futures_util::future::join_all;
use saga_core::ids::SagaId;
use saga_harness::System;
use script::Case;
use slate::Slate;
use stage::Stage;

const BINARY: &str = env!("CARGO_BIN_EXE_saga-e2e-service");
/// The minimum number of cases. Fewer cases would mean that one of the tables is empty.
const CASES: usize = 500;

/// The sagas that have ended, and the failures found.
#[derive(Default)]
struct Sweep {
    ended: Vec<(Case, SagaId)>,
    failures: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shipped_definition_ends_as_expected_under_each_disturbance_and_leaves_a_clean_slate()
-> Result<()> {
    let (system, _guard) = System::alone(BINARY).await;
    let hurried = definitions::hurried();
    let stage = Stage::set(system, &hurried).await?;
    let mut sweep = Sweep::default();

    // The bases run first, because their messages are needed for the disturbed cases. Then all other cases run at once.
    let definitions = || hurried.iter().map(|hurried| &hurried.definition);
    let bases: Vec<Case> = definitions().flat_map(cases::bases).collect();
    let sagas = sweep.run(&stage, bases.clone()).await?;
    let mut all: Vec<Case> = definitions().flat_map(cases::all).collect();
    for (base, saga) in bases.iter().zip(sagas) {
        all.extend(cases::disturbed(base, &stage.relay.seen(saga)));
    }
    sweep.run(&stage, all).await?;
    // Sagas that have not ended would keep the system from becoming quiet.
    sweep.expect_no_failure();

    stage.quiet().await?;
    let slate = stage.slate().await?;
    sweep.check(&stage, &slate);
    slate.check_outside()?;
    sweep.check_rest(&stage).await;
    // Every message is sent again, long after its saga has ended. The replay must have no effect.
    let replayed = stage.replay().await?;
    stage.quiet().await?;
    if stage.slate().await? != slate {
        sweep
            .failures
            .push("a replay of every message has had effects".to_owned());
    }
    sweep.check_rest(&stage).await;
    stage.strike().await?;

    println!(
        "{} sagas have ended, {replayed} messages came once more",
        sweep.ended.len()
    );
    assert!(sweep.ended.len() >= CASES, "a table is empty");
    sweep.expect_no_failure();
    Ok(())
}

impl Sweep {
    /// Runs all these cases at once.
    async fn run(&mut self, stage: &Stage, cases: Vec<Case>) -> Result<Vec<SagaId>> {
        let sagas = stage.start(&cases).await?;
        let running = cases.iter().zip(&sagas);
        let outcomes = join_all(running.map(|(case, saga)| run::run(stage, case, *saga))).await;
        for ((case, saga), outcome) in cases.into_iter().zip(&sagas).zip(outcomes) {
            if let Err(error) = outcome {
                self.fail(stage, &case, *saga, &error);
            }
            self.ended.push((case, *saga));
        }
        Ok(sagas)
    }

    /// Checks what the participants' databases contain for each saga.
    fn check(&mut self, stage: &Stage, slate: &Slate) {
        for (case, saga) in std::mem::take(&mut self.ended) {
            let story = stage.stories.follow(saga);
            let outcome = slate.check(&case, saga, &story.borrow());
            if let Err(error) = outcome {
                self.fail(stage, &case, saga, &error);
            }
            self.ended.push((case, saga));
        }
    }

    /// Checks what the orchestrator's database contains for all sagas, and that there are no dead letters.
    async fn check_rest(&mut self, stage: &Stage) {
        let ended = self.ended.iter();
        let ended = ended
            .map(|(case, saga)| (saga.0, case.end.as_str()))
            .collect();
        if let Err(error) = stage.check_nothing_is_left(&ended).await {
            self.failures.push(format!("  {error:#}"));
        }
    }

    fn expect_no_failure(&self) {
        assert!(
            self.failures.is_empty(),
            "{} failures in {} cases:\n{}",
            self.failures.len(),
            self.ended.len(),
            self.failures.join("\n")
        );
    }

    fn fail(&mut self, stage: &Stage, case: &Case, saga: SagaId, error: &anyhow::Error) {
        let story = stage.stories.follow(saga);
        let told = story.borrow().text();
        let name = &case.name;
        self.failures
            .push(format!("  {name} ({saga}): {error:#}\n{told}"));
    }
}
