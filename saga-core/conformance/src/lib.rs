//! The conformance kit checks that sagas can rely on a participant, in whatever language it is written. The kit talks
//! to the participant over Kafka as the orchestrator would, case by case, and reports which rules of the contract
//! (`saga-core/PARTICIPANTS.md`) the participant breaks.
//!
//! ```text
//!  Description ──▶ Kit ──▶ Case ──▶ Scene ──▶ Wire ──▶ <participant>.commands ──▶ the participant
//!  (a YAML file)            │         ▲         ▲                                      │
//!                           │         │         └────────── saga.inputs, *.dlq ◀───────┘
//!                           ▼         └── World: prepares (HTTP), reads the effects (HTTP, SQL)
//!                         Report
//! ```
//!
//! - A **case** is one rule: its name, why it matters, and how it is tested. It judges only that rule, so that a
//!   participant that breaks one rule fails one case.
//! - A **scene** is one saga in which a case is played. It keeps the commands that were sent and the replies that were
//!   expected and received.
//! - The **wire** is Kafka, or a participant in memory (in the kit's own tests).
//! - A **look** is any JSON that shows the participant's effects. The kit never interprets a look: it compares two looks,
//!   before and after. Without a look, rules about effects are judged by the replies alone, or skipped.
//!
//! The kit sends only commands that an orchestrator may send, of sagas that it makes up. An orchestrator that runs
//! beside the kit ignores the replies. The effects are not undone, so use the kit in test environments only.
//!
//! `sagactl conformance --participant payment` runs the kit from the command line.

mod ask;
mod cases;
mod description;
mod kafka;
mod kit;
mod names;
mod report;
mod scene;
mod wire;
mod world;

pub use ask::{Ask, Heard, Input};
pub use cases::{CASES, Case};
pub use description::{
    Command, Compensation, Description, DescriptionError, Example, Look, Refused, Request, Started,
    shipped,
};
pub use kafka::KafkaWire;
pub use kit::{Kit, Patience};
pub use names::{Names, Unset};
pub use report::{CaseOutcome, CaseResult, Exchange, Report};
pub use scene::Stop;
pub use wire::Wire;
pub use world::{Described, World};
