use std::collections::HashSet;

use serde_json::Value;

use super::*;

const KEY: [u8; 32] = [0; 32];

/// Those that every language seals and opens.
fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/sealing/vectors.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn keyring(vectors: &Value, current: &str) -> Keyring {
    let keys = vectors["keys"].as_object().unwrap().iter();
    let keys = keys.map(|(id, key)| (id.clone(), Keyring::parse_key(key.as_str().unwrap()).unwrap()));
    Keyring::new(current, keys).unwrap()
}

fn list<'a>(vectors: &'a Value, name: &str) -> &'a [Value] {
    let list = vectors[name].as_array().unwrap();
    assert!(!list.is_empty());
    list
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

fn bytes(vector: &Value, name: &str) -> Vec<u8> {
    STANDARD.decode(text(vector, name)).unwrap()
}

fn message(vector: &Value, headers: HashMap<String, String>) -> Message {
    let content_type = text(vector, "content_type").to_owned();
    Message { body: bytes(vector, "body").into(), content_type, headers, ..Message::default() }
}

/// Every language seals to the same bytes, and opens what another one sealed.
#[test]
fn sealed_bodies_are_those_of_every_language() {
    let vectors = vectors();
    for vector in list(&vectors, "sealed") {
        let (queue, id) = (text(vector, "queue"), text(vector, "key_id"));
        let plain = message(vector, [("a".to_owned(), "b".to_owned())].into());
        let nonce = bytes(vector, "nonce").try_into().unwrap();
        let sealed = keyring(&vectors, id).seal_with(queue, plain.clone(), nonce).unwrap();
        assert_eq!(sealed.body, bytes(vector, "sealed"), "{vector}");
        assert_eq!(serde_json::to_value(&sealed.headers).unwrap(), vector["headers"]);
        assert_eq!(keyring(&vectors, "2026-q3").open(queue, &sealed), Ok(plain), "{vector}");
    }
}

/// What was changed, or is for somebody else, is refused by a typed error that names the key and nothing else.
#[test]
fn what_was_not_sealed_so_is_refused() {
    let vectors = vectors();
    let keyring = keyring(&vectors, "2026-q4");
    for vector in list(&vectors, "refused") {
        let headers = serde_json::from_value(vector["headers"].clone()).unwrap();
        let error = keyring.open(text(vector, "queue"), &message(vector, headers)).unwrap_err();
        assert_eq!(error.key_id, text(vector, "key_id"), "{vector}");
        let words = error.to_string();
        assert!(words.contains(&format!("[{}]", text(vector, "failure"))), "{vector}: {words}");
        assert!(words.contains(&error.key_id) && !words.contains("two discs"), "{words}");
    }
}

/// Each seal has a nonce of its own and costs 29 bytes; the rest of the message stays.
#[test]
fn no_nonce_comes_twice() {
    let keyring = Keyring::new("a", [("a", KEY)]).unwrap();
    let plain = Message { body: "two discs".into(), ordering_key: "k".to_owned(), ..Message::default() };
    let sealed = || keyring.seal("orders", plain.clone()).unwrap();
    let nonces = (0..100).map(|_| {
        let sealed = sealed();
        assert_eq!((sealed.body.len(), sealed.ordering_key.as_str()), (9 + 29, "k"));
        sealed.body[1..13].to_vec()
    });
    assert_eq!(nonces.collect::<HashSet<_>>().len(), 100);
    assert_eq!(keyring.open("orders", &sealed()), Ok(plain));
}

/// A migration lets through what is not sealed, and nothing that claims to be.
#[test]
fn unsealed_messages_are_opened_where_that_is_allowed() {
    let keyring = Keyring::new("a", [("a", KEY)]).unwrap().allow_unsealed();
    let mut message = Message { body: "plain".into(), ..Message::default() };
    assert_eq!(keyring.open("orders", &message), Ok(message.clone()));
    message.headers.insert(KEY_HEADER.to_owned(), "a".to_owned());
    let error = keyring.open("orders", &message).unwrap_err();
    assert_eq!(error, OpenError { failure: OpenFailure::UnknownFormat, key_id: "a".to_owned() });
}

/// A key that cannot be meant is refused where it is given, and none is shown.
#[test]
fn bad_keys_are_refused() {
    let error = |current: &str, id: &str, key: &[u8]| Keyring::new(current, [(id, key)]).unwrap_err();
    assert_eq!(error("b", "a", &KEY), InvalidKey::NoCurrent { id: "b".to_owned() });
    for length in [0, 16, 31, 33] {
        assert_eq!(error("a", "a", &vec![0; length]), InvalidKey::Length { got: length });
    }
    for id in ["", "a b", "new\n", "größe", &"x".repeat(65)] {
        assert_eq!(error(id, id, &KEY), InvalidKey::Id { id: id.to_owned() });
    }
    for text in ["", "AAAA", "no base64!", &"A".repeat(43)] {
        assert!(Keyring::parse_key(text).is_err(), "{text}");
    }
    let keyring = Keyring::new("a", [("a", [7; 32])]).unwrap();
    let sealed = keyring.seal("orders", Message::default()).unwrap();
    assert_eq!(keyring.seal("orders", sealed), Err(SealError::AlreadySealed));
    assert!(!format!("{keyring:?}").contains("7, 7"));
}
