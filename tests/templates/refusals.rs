//! Values and templates that are refused, with what was expected, where it stands, and what would help.

use sonomask::media::template::{Kind, Params, Template};

use super::params;

fn refusal(kind: Kind, text: &str, toml: &str) -> String {
    Template::parse(kind, "t", text, "t.launch").unwrap().bind(&params(toml)).unwrap_err().to_string()
}

fn malformed(text: &str) -> String {
    Template::parse(Kind::Sink, "t", text, "t.launch").unwrap_err().to_string()
}

#[test]
fn wrong_values_are_refused_with_what_was_expected() {
    let text = "#: param n: int(0..64) = 3 \"N\"\n#: param t: duration_ms(0ms..10s) = \"1s\" \"T\"\n#: param c: enum(a|b|c) \"C\"\n\
                #: param f: float(0..1) = 0.5 \"F\"\n#: param r: fraction = 30 \"R\"\n#: param u: uri(rtsp) = \"\" \"U\"\n\
                fakesink num-buffers={n} blocksize={t} silent={c} location={u} a={f} b={r}\n";
    let at = "(test.toml:1)";
    for (toml, message) in [
        ("c = 'a'\nn = 65", format!("sink.n = 65: expected a whole number from 0 to 64 {at}")),
        ("c = 'a'\nn = '3'", format!("sink.n = \"3\": expected a whole number from 0 to 64 {at}")),
        ("c = 'd'", format!("sink.c = \"d\": expected \"a\", \"b\" or \"c\" {at}")),
        ("", "sink \"t\" needs sink.c: \"a\", \"b\" or \"c\" (C)".to_owned()),
        ("c = 'a'\nq = 1", format!("sink \"t\" has no parameter \"q\"; it has n, t, c, f, r, u {at}")),
        ("c = 'a'\nf = nan", format!("sink.f = nan: expected a number from 0 to 1 {at}")),
        (
            "c = 'a'\nr = '30/0'",
            format!("sink.r = \"30/0\": expected a frame rate, 30 or \"30000/1001\" for example {at}"),
        ),
        (
            "c = 'a'\nu = 'http://x'",
            format!("sink.u = \"http://x\": expected a URI that begins with rtsp:// {at}"),
        ),
        (
            "c = 'a'\nt = 200",
            format!(
                "sink.t = 200: expected a duration with a unit (ns, us, ms, s, min or h), \"200ms\" for example, from 0s to 10s {at}"
            ),
        ),
    ] {
        assert_eq!(refusal(Kind::Sink, text, toml), message);
    }
}

#[test]
fn a_secret_is_never_printed() {
    let text = "#: param s: secret \"S\"\nfakesink location={s}\n";
    let template = Template::parse(Kind::Sink, "t", text, "t.launch").unwrap();
    assert!(!refusal(Kind::Sink, text, "s = 7133").contains("7133"));
    assert!(!format!("{:?}", template.bind(&params("s = 'hunter2'")).unwrap()).contains("hunter2"));
}

#[test]
fn mistakes_in_a_template_are_refused_with_their_line() {
    let path = "#: param path: path \"P\"\n";
    for (text, message) in [
        (
            format!("{path}filesrc\nlocation=a{{path}}"),
            "{path} is free text and must be the whole value of a property",
        ),
        (format!("{path}a ! video/x-raw,format={{path}} ! b"), "{path} is free text"),
        (format!("{path}a location=\"{{path}}\""), "{path} is free text"),
        (
            format!("{path}a name={{path}}"),
            "the property \"name\" cannot be set from a text parameter (t.launch:2)",
        ),
        (format!("{path}{{path}} ! b"), "{path} is free text"),
        (format!("{path}location={{path}} a"), "belongs to no element (t.launch:2)"),
        (
            "a x={what}".to_owned(),
            "{what} is not declared; add a line #: param what: TYPE \"what it is for\" (t.launch:1)",
        ),
        ("a!b location=3".to_owned(), "cannot read \"a!b\""),
        ("a x=\"open".to_owned(), "is left open at the end (t.launch:1)"),
        (String::new(), "the description has no element (t.launch:1)"),
        ("#: param n: integer \"N\"\na".to_owned(), "there is no type \"integer\""),
        ("\n#: param n: int(5..1) \"N\"\na".to_owned(), "(t.launch:2)"),
        (
            "#: param n: int(0..9) = 10 \"N\"\na".to_owned(),
            "the default 10 of n is not a whole number from 0 to 9 (t.launch:1)",
        ),
        ("#: param kind: text \"K\"\na".to_owned(), "\"kind\" is a setting of sonomask itself (t.launch:1)"),
        (
            "#: wat = 1\na".to_owned(),
            "there is no \"wat\"; expected live, records, uses, param or case (t.launch:1)",
        ),
        ("#: records = true\na".to_owned(), "records = true needs a parameter \"path\" of type path"),
        (
            "#: case c x = a\na".to_owned(),
            "there is no parameter \"c\" that can be \"x\" and takes cases (t.launch:1)",
        ),
    ] {
        let found = malformed(&text);
        assert!(found.contains(message), "{text:?}\n found {found}\n expected {message}");
    }
}

#[test]
fn a_missing_element_comes_with_its_package() {
    let launch = |element: &str| {
        let text = format!("{element} ! fakesink");
        Template::parse(Kind::Sink, "t", &text, "mine.launch")
            .unwrap()
            .bind(&Params::default())
            .unwrap()
            .launch()
    };
    let message = launch("avdec_nothing").unwrap_err().to_string();
    let expected = "GStreamer has no element \"avdec_nothing\" here; install it with: apt-get install gstreamer1.0-libav (mine.launch)";
    assert_eq!(message, expected);
    assert!(
        launch("wholly-unknown")
            .unwrap_err()
            .to_string()
            .contains("install the GStreamer plugin that has it")
    );
}
