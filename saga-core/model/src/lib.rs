//! An exhaustive model of the protocol as built. [`stateright`] explores every order of events that one saga can have
//! under bounded trouble, and checks every promise in every state.
//!
//! The model shares no line with the product. It states the protocol a second time, from saga-core/README.md,
//! orchestrator/README.md (The protocol) and from reading the code. Therefore a mistake in the design shows here, and a
//! mistake in the code shows in the simulation. A correct protocol holds in both; a missing rule has a counterexample
//! in each.
//!
//! ```text
//!   inputs (one partition) ──▶ owner ──▶ store: live, history        rival: read … commit
//!        ▲  ▲  ▲                 │  └──▶ events sent
//!        │  │  └─ timers ◀───────┤
//!        │  └──── people         ▼
//!        └─────── participant: log ─▶ barrier, effects, open call ─▶ replies          (one for each step)
//! ```
//!
//! # The words
//!
//! A [`world::World`] is a state of the whole system. A [`world::Event`] is a thing that can happen to it. A
//! [`world::Budget`] limits the trouble that may still happen. A [`world::Scenario`] is a definition with a budget, and
//! [`rules::Rule`]s are the rules that a scenario can switch off.
//!
//! | Module | Content |
//! |---|---|
//! | [`saga`] | the saga's decisions: replies, timers, actions, both directions |
//! | [`orchestrator`] | a batch as a transaction, redeliveries, history, the owner's memory, and the rival |
//! | [`participant`] | the barrier, effects, saved replies, external calls, the floor |
//! | `events`, `happen` | the possible events, and their effect on the world |
//! | [`properties`] | the promises, by name |
//! | [`rest`] | follows every path without further trouble from every state: does it end? |
//! | [`scenarios`] | the explored scenarios, and the table of knock-outs |
//!
//! # What the model contains
//!
//! Transactions over batches of inputs and of commands; a crash between commit, sending and offsets, where the messages
//! that were sent have arrived, arrive later, or never; lost acknowledgments of commits and of sending; duplicates of
//! any record at any later time; an owner that has lost the partition and commits late; handlers that fail and err, on
//! actions and on compensations; external calls with their intents, commands that wait for them, and sweeps; timers at
//! any time, with the owner's knowledge of the positions of commands, also after a takeover; the deadline; people who
//! cancel, retry, complete, skip and abandon; lifecycle events by number; retention with its floors.
//!
//! # What the model leaves out, and why
//!
//! - Payloads, causes, results: no decision depends on them.
//! - Clocks: an armed timer may fall due at any time, which is more than any clock allows. Therefore the two checks of a
//!   command (seen picked up, then overdue) are one, and the verdict `queued`, which only changes the text for a
//!   person, is left out.
//! - Several sagas: sagas share only the floor, which is a single fact here.
//! - The owner's cache of sagas: a rival may read at any time and commit at any later time. Only the version check stops
//!   the rival, as in the product.
//! - Two members of a participant's group at once: the second member's insert finds the first member's row and runs
//!   again, which is a duplicate.
//! - Compensations with external calls: they have the same intents, in the other direction.
//! - Records that retention deletes from a log, and offsets that cannot be read.
//! - The kind in `timer.due`, which the product only has for historical reasons: an attempt's number rises when the
//!   attempt is sent, and not when its delay begins, so no state needs the kind.
//!
//! # Coming to rest
//!
//! `always` checks one state. The promise that a saga is not stuck is about the following states. Therefore [`rest`]
//! follows every path that needs no further trouble, from every reachable state, and remembers the results. This is
//! more than to show that *some* path leads to an end: every path does, in whatever order the next steps happen.
//!
//! # Running it
//!
//! `cargo run --release -p saga-model` explores all of it in a few minutes and prints a line for each scenario and each
//! rule; `--only NAME --show` prints the path to a broken property. The tests explore the smaller scenarios and the
//! whole table of knock-outs.

pub mod definition;
mod events;
pub mod explore;
mod happen;
pub mod known_ends;
pub mod message;
pub mod orchestrator;
pub mod participant;
pub mod properties;
pub mod rest;
pub mod rules;
pub mod saga;
pub mod scenarios;
pub mod world;
