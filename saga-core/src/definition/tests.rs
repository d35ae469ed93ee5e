//! One table: a definition with a fault, and the fault as a person reads it.

use super::*;
use serde_json::json;

const PLACE_ORDER: &str = include_str!("../../../orchestrator/definitions/place-order.yaml");
const PAYMENT_FIRST: &str =
    include_str!("../../../orchestrator/definitions/place-order-payment-first.yaml");

/// A good definition whose lines the tests change: `(line number, text)`.
const BASE: &str = "\
name: trip
version: 1
deadline: 24h
steps:
  - name: book
    kind: compensatable
    participant: hotel
    command: hotel.book
    compensation:
      command: hotel.cancel
  - name: pay
    kind: pivot
    participant: bank
    command: bank.pay
  - name: tell
    kind: retriable
    participant: mail
    command: mail.send
";

fn with(changes: &[(usize, &str)]) -> String {
    let mut lines: Vec<&str> = BASE.lines().collect();
    for (line, text) in changes {
        lines[line - 1] = text;
    }
    lines.join("\n")
}

fn errors(yaml: &str) -> Vec<String> {
    match SagaDefinition::parse("trip.yaml", yaml) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The definition with these lines changed has exactly these faults, each told by its beginning.
#[track_caller]
fn check(changes: &[(usize, &str)], expected: &[&str]) {
    let found = errors(&with(changes));
    let same = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, expected)| found.starts_with(expected));
    assert!(same, "expected {expected:#?}, found {found:#?}");
}

#[test]
fn the_base_and_the_shipped_definitions_are_good() {
    check(&[], &[]);
    for yaml in [PLACE_ORDER, PAYMENT_FIRST] {
        SagaDefinition::parse("shipped.yaml", yaml).unwrap();
    }
}

#[test]
fn place_order_confirms_and_completes_side_by_side_after_the_pivot() {
    let definition = SagaDefinition::parse("place-order.yaml", PLACE_ORDER).unwrap();
    let pivot = definition.pivot().unwrap();
    assert_eq!(definition.steps[pivot].name, "charge-payment");
    for name in ["complete-stock", "confirm-order"] {
        let (_, step) = definition.step(name).unwrap();
        assert_eq!(step.after, [pivot], "{name}");
        assert_eq!(step.ancestors, [0, 1, 2], "{name}");
    }
    assert!(definition.steps[0].action.is_none());
    assert_eq!(
        definition.participants().into_iter().collect::<Vec<_>>(),
        ["inventory", "order", "payment"]
    );
}

#[test]
fn a_fault_names_file_line_and_step() {
    check(
        &[(5, "  - name: Book It")],
        &["trip.yaml:5: step 'Book It': name 'Book It' must be 1 to 64 of a-z, 0-9, - and _"],
    );
    check(
        &[(3, "deadline: soon")],
        &["trip.yaml:3: 'soon' is not a duration"],
    );
    check(
        &[(3, "deadline: 0s")],
        &["trip.yaml:3: deadline must be longer than 0"],
    );
    check(
        &[(2, "version: 0")],
        &["trip.yaml:2: version must be from 1"],
    );
    check(
        &[(13, "    participant: ''")],
        &["trip.yaml:13: step 'pay': participant '' must be"],
    );
    check(
        &[(14, "    command: bank pay")],
        &["trip.yaml:14: step 'pay': command: 'bank pay' is not a command type"],
    );
    check(
        &[(14, "    command: bank.pay.resolve")],
        &["trip.yaml:14: step 'pay': command: 'bank.pay.resolve' ends in .resolve"],
    );
    check(
        &[(18, "    command: mail.send\n    timeout: 0s")],
        &["trip.yaml:19: step 'tell': timeout must be longer than 0"],
    );
}

#[test]
fn what_is_not_the_expected_yaml_is_refused_with_its_line_and_step() {
    for (changes, beginning, contains) in [
        (
            [(12, "    kind: pivotal")],
            "trip.yaml:12: step 'pay': ",
            "pivotal",
        ),
        (
            [(14, "    comand: bank.pay")],
            "trip.yaml:14: step 'pay': ",
            "comand",
        ),
        ([(2, "version: one")], "trip.yaml:2: ", ""),
        ([(1, "name: [trip")], "trip.yaml:", ""),
        (
            [(13, "    command: bank.twice")],
            "trip.yaml:14: step 'pay': ",
            "command",
        ),
    ] {
        let found = errors(&with(&changes));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(beginning), "{found:?}");
        assert!(found[0].contains(contains), "{found:?}");
        assert!(!found[0].contains(" at line "), "{found:?}");
    }
}

#[test]
fn all_faults_are_found_at_once_in_the_files_order() {
    check(
        &[
            (3, "deadline: 1 day"),
            (8, "    command: ''"),
            (15, "  - name: pay"),
        ],
        &[
            "trip.yaml:3: '1 day' is not a duration",
            "trip.yaml:8: step 'book': command: '' is not a command type",
            "trip.yaml:15: step 'pay': another step has this name already",
        ],
    );
}

#[test]
fn kinds_must_stand_where_the_pivot_allows() {
    check(
        &[(12, "    kind: retriable")],
        &[
            "trip.yaml:11: step 'pay': is retriable, which needs a pivot before it",
            "trip.yaml:15: step 'tell': is retriable, which needs a pivot before it",
        ],
    );
    check(
        &[(16, "    kind: pivot")],
        &["trip.yaml:15: step 'tell': a saga has one pivot, and 'pay' is it already"],
    );
    check(
        &[(14, "    command: bank.pay\n    after: []")],
        &["trip.yaml:5: step 'book': is compensatable, so the pivot 'pay' must come after it"],
    );
    check(
        &[(18, "    command: mail.send\n    after: [book]")],
        &["trip.yaml:15: step 'tell': is retriable, so it must come after the pivot 'pay'"],
    );
}

#[test]
fn compensations_belong_to_compensatable_steps_and_only_to_them() {
    check(
        &[(9, ""), (10, "")],
        &["trip.yaml:5: step 'book': a compensatable step needs a compensation"],
    );
    let undo = "    command: bank.pay\n    compensation:\n      command: bank.refund";
    check(
        &[(14, undo)],
        &["trip.yaml:16: step 'pay': the pivot is never compensated"],
    );
    let undo = "    command: mail.send\n    compensation:\n      command: mail.recall";
    check(
        &[(18, undo)],
        &["trip.yaml:20: step 'tell': a retriable step is never compensated"],
    );
}

#[test]
fn a_definition_has_a_limit_of_steps() {
    let steps: Vec<String> = (0..=MAX_STEPS)
        .map(|index| {
            format!(
                "  - {{name: s{index}, kind: compensatable, participant: p, command: p.do, \
                 compensation: {{command: p.undo}}}}\n"
            )
        })
        .collect();
    let yaml = format!(
        "name: long\nversion: 1\ndeadline: 1h\nsteps:\n{}",
        steps.concat()
    );
    assert_eq!(errors(&yaml), ["trip.yaml:69: 65 steps are more than 64"]);
    assert_eq!(
        errors("name: none\nversion: 1\ndeadline: 1h\nsteps: []\n"),
        ["trip.yaml:1: a saga needs at least one step"]
    );
}

#[test]
fn the_order_of_steps_must_be_one() {
    check(
        &[(18, "    command: mail.send\n    after: [pays]")],
        &["trip.yaml:19: step 'tell': after: there is no step 'pays'"],
    );
    check(
        &[(18, "    command: mail.send\n    after: [pay, pay]")],
        &["trip.yaml:19: step 'tell': after: 'pay' is named twice"],
    );
    check(
        &[(14, "    command: bank.pay\n    after: [tell]")],
        &["trip.yaml:11: step 'pay': after: a cycle; none of these can ever start: pay, tell"],
    );
}

#[test]
fn only_a_first_compensatable_step_can_be_the_starters() {
    check(&[(8, "")], &[]);
    check(
        &[(14, "")],
        &[
            "trip.yaml:11: step 'pay': has no command, so the starter has done it: only",
            "trip.yaml:11: step 'pay': has no command, so the starter has done it before",
        ],
    );
    check(
        &[(8, "    timeout: 5s")],
        &["trip.yaml:5: step 'book': has no command, so input, timeout and retry mean nothing"],
    );
}

#[test]
fn retry_policies_have_limits() {
    for (retry, message) in [
        ("{attempts: 0}", "retry: attempts must be from 1 to 1000"),
        ("{attempts: 1001}", "retry: attempts must be from 1 to 1000"),
        ("{factor: 0.5}", "retry: factor must be from 1 to 1000"),
        ("{jitter: 2}", "retry: jitter must be from 0 to 1"),
        (
            "{maxDelay: 100ms}",
            "retry: maxDelay is shorter than firstDelay",
        ),
        ("{firstDelay: x}", "'x' is not a duration"),
        (
            "{firstDelay: 0s}",
            "retry: firstDelay must be longer than 0",
        ),
    ] {
        let line = format!("    command: bank.pay\n    retry: {retry}");
        check(
            &[(14, &line)],
            &[&format!("trip.yaml:15: step 'pay': {message}")],
        );
    }
}

#[test]
fn paths_must_parse_and_refer_to_what_is_there_by_then() {
    let pay = |input: &str| format!("    command: bank.pay\n    input:\n      room: {input}");
    check(&[(14, &pay("$.steps.book.room"))], &[]);
    check(
        &[(14, &pay("$.input.items[?@.id == $.steps.book.id]"))],
        &[],
    );
    for (path, message) in [
        ("$.steps[", "'$.steps[' is not a JSONPath (RFC 9535)"),
        ("$.steps.*", "'$.steps.*' must begin with"),
        ("$.inputs.x", "'$.inputs.x' must begin with"),
        ("$.steps.boko", "'$.steps.boko': there is no step 'boko'"),
        (
            "$.steps.pay.id",
            "'$.steps.pay.id': a step cannot read its own result",
        ),
        (
            "$.steps.tell.id",
            "'$.steps.tell.id': 'tell' does not come before this step",
        ),
    ] {
        check(
            &[(14, &pay(path))],
            &[&format!("trip.yaml:16: step 'pay': {message}")],
        );
    }
    let undo = |path: &str| format!("      command: hotel.cancel\n      input: {path}");
    check(
        &[(10, &undo("{booking: $.steps.book.id, why: $.cause}"))],
        &[],
    );
    check(
        &[(10, &undo("{paid: $.steps.pay}"))],
        &["trip.yaml:11: step 'book': '$.steps.pay': 'pay' does not come before this step"],
    );
}

#[test]
fn the_hash_is_of_the_meaning_and_not_of_the_text() {
    let hash = |yaml: &str| SagaDefinition::parse("trip.yaml", yaml).unwrap().hash;
    let base = hash(BASE);
    assert_eq!(base.0.len(), 64);
    assert_eq!(hash(&format!("# a comment\n\n{BASE}")), base);
    assert_eq!(hash(&with(&[(3, "deadline: 1440m")])), base);
    assert_eq!(
        hash(&with(&[(
            14,
            "    command: bank.pay\n    timeout: 10000ms"
        )])),
        base
    );
    assert_eq!(
        hash(&with(&[(18, "    command: mail.send\n    after: [pay]")])),
        base
    );
    assert_ne!(hash(&with(&[(3, "deadline: 23h")])), base);
    assert_ne!(
        hash(&with(&[(
            14,
            "    command: bank.pay\n    retry: {jitter: 0}"
        )])),
        base
    );
}

#[test]
fn a_stored_document_restores_the_same_definition() {
    for yaml in [BASE, PLACE_ORDER, PAYMENT_FIRST] {
        let definition = SagaDefinition::parse("trip.yaml", yaml).unwrap();
        let text = definition.document.to_string();
        let stored: Value = serde_json::from_str(&text).unwrap();
        let restored = SagaDefinition::from_document(&stored).unwrap();
        assert_eq!(restored.hash, definition.hash);
        assert_eq!(restored.document, definition.document);
        let mut steps = definition.steps;
        for step in &mut steps {
            assert!(step.participant_line.is_some(), "{}", step.name);
            // A stored document has no lines to point at.
            step.participant_line = None;
        }
        assert_eq!(format!("{:?}", restored.steps), format!("{steps:?}"));
    }
}

#[test]
fn a_broken_stored_document_is_refused_by_name() {
    let errors = SagaDefinition::from_document(&json!({"name": "trip"})).unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .starts_with("stored definition trip: "),
        "{errors:?}"
    );
}
