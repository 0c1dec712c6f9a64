use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn fields(json: &str) -> Object<'_> {
    Object::parse(json).unwrap()
}

#[test]
fn a_replaced_value_leaves_every_other_byte() {
    let body =
        "\u{feff} {\n  \"model\" : \"a\" ,\t\"n\":1.50, \"x\": {\"model\": \"inner\"}\r\n } \n";
    let out = set_fields(body, &fields(body), &[("model", "\"b\""), ("n", "2")]);
    assert_eq!(
        out,
        "\u{feff} {\n  \"model\" : \"b\" ,\t\"n\":2, \"x\": {\"model\": \"inner\"}\r\n } \n"
    );
}

#[test]
fn a_new_field_comes_right_after_the_last_value() {
    let body = "{\"a\": 1\n}\n";
    assert_eq!(
        set_fields(body, &fields(body), &[("b", "[2]"), ("c\"", "3")]),
        "{\"a\": 1,\"b\":[2],\"c\\\"\":3\n}\n"
    );
}

#[test]
fn a_new_field_comes_right_after_a_last_value_that_is_replaced_too() {
    let body = "{\"a\": 1 }";
    assert_eq!(
        set_fields(body, &fields(body), &[("b", "2"), ("a", "9")]),
        "{\"a\": 9,\"b\":2 }"
    );
}

#[test]
fn an_empty_object_takes_fields() {
    for (body, expected) in [
        ("{}", "{\"a\":1,\"b\":2}"),
        (" { \n} ", " {\"a\":1,\"b\":2 \n} "),
    ] {
        let out = set_fields(body, &fields(body), &[("a", "1"), ("b", "2")]);
        assert_eq!(out, expected);
    }
}

#[test]
fn no_edit_leaves_all_bytes() {
    let body = " {\"a\" :1 , \"a\":2 } ";
    assert_eq!(set_fields(body, &fields(body), &[]), body);
}

#[test]
fn of_two_edits_to_a_field_the_later_counts() {
    let body = "{\"a\":1}";
    let edits = [("a", "2"), ("b", "3"), ("a", "4"), ("b", "5")];
    assert_eq!(set_fields(body, &fields(body), &edits), "{\"a\":4,\"b\":5}");
}

#[test]
fn a_key_that_stands_twice_is_read_last_and_replaced_everywhere() {
    let body = r#"{"model":"a","x":1,"mod\u0065l":"b"}"#;
    let object = fields(body);
    assert_eq!(object.get("model"), Some("\"b\""));
    assert_eq!(
        set_fields(body, &object, &[("model", "\"c\"")]),
        r#"{"model":"c","x":1,"mod\u0065l":"c"}"#
    );
}

#[test]
fn keys_with_escapes_and_lone_surrogates_are_read() {
    let object = fields(r#"{"a\"b\\":1,"\ud83d\ude00":2,"\ud800x":3,"":4}"#);
    let keys: Vec<&str> = object.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a\"b\\", "😀", "\u{fffd}x", ""]);
}

#[test]
fn only_one_whole_object_is_an_object() {
    for json in [
        "",
        "{",
        "}",
        "{}{}",
        "[]",
        "1",
        "null",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "{\"a\":01}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":[}]}",
        "{\"a\":tru}",
        "{1:2}",
        "{} \u{feff}",
        "\u{feff}\u{feff}{}",
    ] {
        assert!(Object::parse(json).is_err(), "{json:?}");
    }
}

#[test]
fn counts_are_whole_numbers_however_they_are_written() {
    for (raw, expected) in [
        ("12", Some(12)),
        ("12.0", Some(12)),
        ("1e3", Some(1000)),
        ("0", Some(0)),
        ("-0.0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("12.5", None),
        ("-1", None),
        ("1e300", None),
        ("null", None),
        ("\"12\"", None),
        ("[12]", None),
    ] {
        assert_eq!(count(raw), expected, "{raw}");
    }
}

#[test]
fn texts_are_unescaped_and_their_length_is_known_without() {
    for (raw, text) in [
        (r#""""#, ""),
        (r#""plain é 😀""#, "plain é 😀"),
        (r#""a\nb\t\"c\"\\ \/\b\f\r""#, "a\nb\t\"c\"\\ /\u{8}\u{c}\r"),
        (r#""\u00e9\u4e2d\ud83d\ude00\u0041""#, "é中😀A"),
    ] {
        let string = JsonStr::new(raw).unwrap();
        assert_eq!(string.text(), text);
        assert_eq!(string.text_len(), text.len(), "{raw}");
    }
    let lone = JsonStr::new(r#""a\ud800\n\\u\udc00\ud83dz""#).unwrap();
    assert_eq!(lone.text(), "a\u{fffd}\n\\u\u{fffd}\u{fffd}z");
}

#[test]
fn places_of_a_text_are_found_in_its_escaped_form() {
    let raw = r#""a\n\u00e9 \ud83d\ude00\ud800x\/é\\""#;
    let string = JsonStr::new(raw).unwrap();
    let text = string.text().into_owned();
    let places: Vec<usize> = (0..=text.len())
        .filter(|at| text.is_char_boundary(*at))
        .collect();
    let offsets = Offsets::of(string, &places);
    let pieces: Vec<&str> = places
        .windows(2)
        .map(|two| &string.escaped()[offsets.get(two[0])..offsets.get(two[1])])
        .collect();
    assert_eq!(
        pieces,
        [
            "a",
            r"\n",
            r"\u00e9",
            " ",
            r"\ud83d\ude00",
            r"\ud800",
            "x",
            r"\/",
            "é",
            r"\\"
        ]
    );
    let plain = JsonStr::new("\"abc\"").unwrap();
    assert_eq!(Offsets::of(plain, &[1, 3]).get(3), 3);
}

#[test]
fn deep_nesting_is_walked_without_recursion() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let object = fields(&deep);
    let mut cursor = Cursor::new(&deep);
    assert!(cursor.enter(b'{'));
    assert_eq!(cursor.key().as_deref(), Some("a"));
    assert_eq!(cursor.value(), object.get("a").unwrap());
    assert_eq!(cursor.key(), None);
    assert!(Object::parse(&"{\"a\":".repeat(100_000)).is_err());
}

#[test]
fn pieces_of_a_string_cut_no_character_escape_or_pair() {
    let escaped =
        r#"é\n\\\\\"😀\ud83d\ude00\u00e9abcdefghijk\\u0041\ud83d\ude00\ud83d\ude00"#.repeat(5);
    for max in 0..200 {
        let pieces: Vec<&str> = split_escaped(&escaped, max).collect();
        assert_eq!(pieces.concat(), escaped);
        for piece in pieces {
            assert!(!piece.is_empty() && piece.len() <= max.max(12), "{piece}");
            serde_json::from_str::<String>(&format!("\"{piece}\"")).expect(piece);
        }
    }
    assert_eq!(split_escaped("", 16).count(), 0);
}

#[test]
fn minified_json_is_the_same_on_one_line() {
    let json = "{ \"a b\" : [ 1 ,\n2 ], \"c\\\" \\n\" : \" \" ,\"d\":{ } }\r\n";
    assert_eq!(minify(json), r#"{"a b":[1,2],"c\" \n":" ","d":{}}"#);
    assert!(matches!(minify("{\"a b\":1}"), Cow::Borrowed(_)));
}

/// Any JSON value, three levels deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// White space as JSON has it.
fn space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

/// An object as somebody may write it: fields in any order, white space anywhere.
fn object() -> impl Strategy<Value = (Vec<(String, Value)>, String)> {
    let field = (".{0,6}", value(), space(), space(), space(), space());
    (prop::collection::vec(field, 0..8), space(), space()).prop_map(|(fields, before, inside)| {
        let written: Vec<String> = fields
            .iter()
            .map(|(key, value, a, b, c, d)| {
                format!("{a}{}{b}:{c}{value}{d}", Value::from(key.as_str()))
            })
            .collect();
        let body = format!("{before}{{{inside}{}}}{before}", written.join(","));
        let fields = fields.into_iter().map(|field| (field.0, field.1)).collect();
        (fields, body)
    })
}

proptest! {
    #[test]
    fn any_object_is_read_as_serde_json_reads_it((fields, body) in object()) {
        let object = Object::parse(&body).unwrap();
        let read: Vec<(String, Value)> = object
            .iter()
            .map(|(key, raw)| (key.to_owned(), serde_json::from_str(raw).unwrap()))
            .collect();
        let reread: Vec<(String, Value)> = fields
            .into_iter()
            .map(|(key, value)| (key, serde_json::from_str(&value.to_string()).unwrap()))
            .collect();
        prop_assert_eq!(read, reread);
    }

    #[test]
    fn the_cursor_finds_the_same_spans_as_the_validating_parse((_, body) in object()) {
        let object = Object::parse(&body).unwrap();
        let mut cursor = Cursor::new(&body);
        let entered = cursor.enter(b'{');
        prop_assert!(entered);
        for (key, raw) in object.iter() {
            let found = cursor.key();
            prop_assert_eq!(found.as_deref(), Some(key));
            prop_assert_eq!(cursor.value(), raw);
        }
        prop_assert_eq!(cursor.key(), None);
        prop_assert_eq!(cursor.peek(), None);
    }

    #[test]
    fn any_edit_changes_its_field_and_nothing_else(
        (_, body) in object(), name in ".{0,6}", new in value(), pick in any::<prop::sample::Index>(),
    ) {
        let object = Object::parse(&body).unwrap();
        let new = new.to_string();
        let count = object.iter().count();
        let name = if count > 0 && pick.index(2) == 0 {
            object.iter().nth(pick.index(count)).unwrap().0.to_owned()
        } else {
            name
        };
        let edited = set_fields(&body, &object, &[(&name, &new)]);
        let after = Object::parse(&edited).unwrap();
        prop_assert_eq!(after.get(&name), Some(new.as_str()));
        let others = |object: &Object<'_>| -> Vec<(String, String)> {
            object
                .iter()
                .filter(|(key, _)| *key != name)
                .map(|(key, raw)| (key.to_owned(), raw.to_owned()))
                .collect()
        };
        prop_assert_eq!(others(&object), others(&after));
        // Byte for byte: what is between the values of that name is the same.
        let removed = |body: &str, object: &Object<'_>| {
            let mut rest = Vec::new();
            let mut at = 0;
            for (key, raw) in object.iter() {
                if key == name {
                    let start = raw.as_ptr() as usize - body.as_ptr() as usize;
                    rest.push(body[at..start].to_owned());
                    at = start + raw.len();
                }
            }
            rest.push(body[at..].to_owned());
            rest
        };
        if object.get(&name).is_some() {
            prop_assert_eq!(removed(&body, &object), removed(&edited, &after));
        } else {
            let comma = if object.is_empty() { "" } else { "," };
            let added = format!("{comma}{}:{new}", Value::from(name.as_str()));
            let at = edited.find(&added).unwrap();
            // The added text may occur in the body by chance; one place must be right.
            let restored = edited
                .match_indices(&added)
                .any(|(at, _)| [&edited[..at], &edited[at + added.len()..]].concat() == body);
            prop_assert!(restored, "at {}", at);
        }
    }

    #[test]
    fn minifying_changes_no_value((_, body) in object()) {
        let small = minify(&body);
        prop_assert!(!small.contains('\n') && !small.contains('\r'));
        let read = |json: &str| serde_json::from_str::<Value>(json).unwrap();
        prop_assert_eq!(read(&small), read(&body));
    }

    #[test]
    fn texts_read_as_serde_json_reads_them(text in any::<String>()) {
        let raw = Value::from(text.as_str()).to_string();
        let string = JsonStr::new(&raw).unwrap();
        prop_assert_eq!(string.text_len(), text.len());
        prop_assert_eq!(string.text(), text);
        for max in [0, 13, 50] {
            for piece in split_escaped(string.escaped(), max) {
                let whole = serde_json::from_str::<String>(&format!("\"{piece}\""));
                prop_assert!(whole.is_ok());
            }
        }
    }

    #[test]
    fn garbage_is_walked_to_its_end(garbage in "[\\[\\]{}\":,a1 \\\\é]{0,60}") {
        let _ = Object::parse(&garbage);
        let _ = minify(&garbage);
        let mut cursor = Cursor::new(&garbage);
        for step in 0..400 {
            match step % 4 {
                0 => { cursor.enter(b'{'); }
                1 => { cursor.key(); }
                2 => { cursor.enter(b'['); }
                _ => { cursor.element(); cursor.value(); }
            }
        }
        let at = cursor.mark();
        prop_assert!(at <= garbage.len());
        for raw in [garbage.as_str(), "\"\\", "\"\\u", "\"\\u12\"", "\"\\"] {
            if let Some(string) = JsonStr::new(raw) {
                let _ = (string.text(), string.text_len(), string.escaped());
                let _ = split_escaped(string.escaped(), 12).count();
            }
        }
    }
}

#[test]
fn an_object_that_is_known_to_be_one_is_read_alike() {
    for json in [
        "{}",
        "\u{feff} {\n \"a\" : \"x\" ,\t\"n\":-1.50e3, \"o\": {\"}\": [\"]\", {}]}\r\n } \n",
        r#"{"\u0061":1,"a":[true , null],"":"\"}\\","\ud800":{"a":{}}}"#,
    ] {
        let fields = |object: &Object<'_>| -> Vec<(String, String)> {
            let fields = object.iter();
            fields
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        assert_eq!(
            fields(&Object::of_valid(json)),
            fields(&Object::parse(json).unwrap())
        );
    }
    for no_object in ["", "[1]", "{\"a", "{\"a\":", "7", "\u{feff}"] {
        let _ = Object::of_valid(no_object);
    }
}
