//! Tests definitions in one table: a definition with a fault, and the error text that a person reads.

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

/// Asserts that the definition with these lines changed has exactly these faults. Each is given by the beginning of its
/// text.
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
fn a_definition_sets_the_uniqueness_of_its_business_key() {
    for (line, expected) in [
        ("deadline: 24h", BusinessKey::Any),
        ("deadline: 24h\nbusinessKey: any", BusinessKey::Any),
        ("deadline: 24h\nbusinessKey: unique", BusinessKey::Unique),
    ] {
        let definition = SagaDefinition::parse("trip.yaml", &with(&[(3, line)])).unwrap();
        assert_eq!(definition.business_key, expected);
        let stored = SagaDefinition::from_document(&definition.document).unwrap();
        assert_eq!(
            (stored.business_key, stored.hash),
            (expected, definition.hash)
        );
    }
    let found = errors(&with(&[(3, "deadline: 24h\nbusinessKey: once")]));
    assert!(found[0].starts_with("trip.yaml:4: "), "{found:?}");
    assert!(found[0].contains("once"), "{found:?}");
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
fn unexpected_yaml_is_refused_with_its_line_and_step() {
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
fn kinds_must_fit_their_position_relative_to_the_pivot() {
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
fn paths_must_parse_and_refer_to_available_results() {
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
fn a_dollar_sign_has_an_escape_and_other_texts_that_begin_with_one_are_refused() {
    let pay = |input: &str| format!("    command: bank.pay\n    input:\n      note: {input}");
    check(&[(14, &pay("$$5 off"))], &[]);
    check(&[(14, &pay("'$$HOME'"))], &[]);
    for (text, message) in [
        (
            "$5 off",
            "'$5 off' begins with $ and is not a JSONPath (RFC 9535): write '$$5 off'",
        ),
        (
            "$HOME",
            "'$HOME' begins with $ and is not a JSONPath (RFC 9535): write '$$HOME'",
        ),
        (
            "$.input.order-id",
            "'$.input.order-id' is not a JSONPath (RFC 9535), in which a name with a hyphen needs brackets: use \
             $.input['order-id']",
        ),
        (
            "$.input.a b",
            "'$.input.a b' is not a JSONPath (RFC 9535) from the marked place on\n    $.input.a b\n             ^",
        ),
    ] {
        check(
            &[(14, &pay(text))],
            &[&format!("trip.yaml:16: step 'pay': {message}")],
        );
    }
}

#[test]
fn words_and_numbers_in_a_template_follow_yaml_1_2() {
    let pay = |input: &str| format!("    command: bank.pay\n    input: {input}");
    let yaml = with(&[(
        14,
        &pay("{a: NO, b: off, c: y, d: 1_000, e: 01234, f: 0b11, g: 1.5, h: true}"),
    )]);
    let definition = SagaDefinition::parse("trip.yaml", &yaml).unwrap();
    assert_eq!(
        definition.document["steps"][1]["action"]["input"],
        json!({"a": "NO", "b": "off", "c": "y", "d": "1_000", "e": "01234", "f": "0b11", "g": 1.5, "h": true})
    );
    for (change, message) in [
        (
            (2, "version: 1_0".to_owned()),
            "trip.yaml:2: expected a whole number",
        ),
        (
            (2, "version: '1'".to_owned()),
            "trip.yaml:2: expected a whole number",
        ),
        (
            (14, pay("{n: 1234567890123456789012}")),
            "trip.yaml:15: step 'pay': 1234567890123456789012 is a number with more digits than can be kept",
        ),
        (
            (13, "    kind: pivot".to_owned()),
            "trip.yaml:13: step 'pay': the key kind occurs here for the second time",
        ),
    ] {
        check(&[(change.0, &change.1)], &[message]);
    }
}

#[test]
fn a_declared_schema_of_the_input_is_compiled_and_belongs_to_the_hash() {
    let schema = |text: &str| with(&[(3, &format!("deadline: 24h\ninput:\n  schema:\n{text}"))]);
    let parcel = schema("    type: object\n    required: [parcel]");
    let definition = SagaDefinition::parse("trip.yaml", &parcel).unwrap();
    assert_eq!(
        definition.document["input"],
        json!({"schema": {"type": "object", "required": ["parcel"]}})
    );
    assert!(definition.check_input(&json!({"parcel": 1})).is_ok());
    let misfit = definition.check_input(&json!({})).unwrap_err();
    assert!(
        misfit
            .to_string()
            .contains("\"parcel\" is a required property"),
        "{misfit}"
    );
    let restored = SagaDefinition::from_document(&definition.document).unwrap();
    assert_eq!(restored.check_input(&json!({})), Err(misfit));
    let plain = SagaDefinition::parse("trip.yaml", BASE).unwrap();
    assert!(plain.check_input(&json!({})).is_ok());
    assert_ne!(plain.hash, definition.hash);
    assert!(plain.document.get("input").is_none());
    for (text, expected) in [
        (
            "    type: object\n    properties:\n      parcel:\n        type: whole",
            "trip.yaml:9: input: schema: /properties/parcel/type: ",
        ),
        (
            "    properties:\n      parcel: {$ref: 'https://example.com/parcel.json'}",
            "trip.yaml:6: input: schema: 'https://example.com/parcel.json' is not in this schema, and nothing is fetched",
        ),
        (
            "    type: object\n  example: {}",
            "trip.yaml:7: unknown field `example`",
        ),
    ] {
        let found = errors(&schema(text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
    }
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
            // A stored document has no line numbers.
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

#[test]
fn how_often_a_pivot_is_asked_for_is_the_pivots_and_a_number() {
    let pivot = |attempts: &str| {
        let line = format!("    command: bank.pay\n    resolve: {{attempts: {attempts}}}");
        with(&[(14, &line)])
    };
    let definition = SagaDefinition::parse("trip.yaml", &pivot("7")).unwrap();
    assert_eq!(definition.steps[1].resolve_attempts, Some(7));
    let restored = SagaDefinition::from_document(&definition.document).unwrap();
    assert_eq!(restored.steps[1].resolve_attempts, Some(7));
    for attempts in ["0", "1001"] {
        assert_eq!(
            errors(&pivot(attempts)),
            ["trip.yaml:15: step 'pay': resolve: attempts must be from 1 to 1000"]
        );
    }
    let elsewhere = "    command: mail.send\n    resolve: {attempts: 7}";
    check(
        &[(18, elsewhere)],
        &["trip.yaml:19: step 'tell': resolve: only a pivot's outcome is asked for; leave it out"],
    );
}
