//! Texts and paths that arrive in an element as they were given, whatever they hold, and change no pipeline.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;
use proptest::prelude::*;
use sonomask::media::template::{Kind, Params, Template};

use super::{builtin, required};

/// Factory names of everything in the bin, sorted.
fn factories(bin: &gst::Bin) -> Vec<String> {
    let mut names: Vec<String> = bin
        .iterate_elements()
        .into_iter()
        .flatten()
        .map(|e| e.factory().unwrap().name().to_string())
        .collect();
    names.sort();
    names
}

fn only(bin: &gst::Bin, factory: &str) -> gst::Element {
    bin.iterate_elements().into_iter().flatten().find(|e| e.factory().unwrap().name() == factory).unwrap()
}

#[test]
fn a_relative_path_belongs_to_the_folder_of_the_file_that_named_it() {
    let table = "path = 'loop.mp4'".parse().unwrap();
    let bound = builtin(Kind::Source, "file")
        .bind(&Params::from_table(&table, Path::new("/clinic"), "c.toml:3"))
        .unwrap();
    let bin = bound.launch().unwrap();
    assert_eq!(only(&bin, "filesrc").property::<String>("location"), "/clinic/loop.mp4");
}

fn nasty() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("\\".to_owned()),
        Just("!".to_owned()),
        Just(" ! ".to_owned()),
        Just("\n".to_owned()),
        Just(" fakesink name=x ".to_owned()),
        Just("{path}".to_owned()),
        Just(";".to_owned()),
        Just("=".to_owned()),
        Just(")".to_owned()),
        Just("(".to_owned()),
        Just("name=evil".to_owned()),
        Just("%s%n".to_owned()),
        "[^\0]{0,8}",
        "\\PC{0,8}",
    ];
    prop::collection::vec(part, 1..8).prop_map(|parts| parts.concat()).prop_filter("empty", |s| !s.is_empty())
}

proptest! {
    #[test]
    fn no_path_changes_the_pipeline(text in nasty()) {
        gst::init().unwrap();
        for (kind, name, element) in
            [(Kind::Source, "file", "filesrc"), (Kind::Sink, "record-mp4", "filesink"), (Kind::Sink, "record-mkv", "filesink")]
        {
            let template = builtin(kind, name);
            let launch = |text: &str| {
                let mut params = Params::default();
                params.set("path", text, "test");
                template.bind(&params).unwrap().launch().unwrap()
            };
            let (plain, odd) = (launch("a"), launch(&text));
            prop_assert_eq!(only(&odd, element).property::<String>("location"), text.clone());
            prop_assert_eq!(factories(&odd), factories(&plain));
        }
    }

    #[test]
    fn no_text_changes_the_pipeline(text in nasty()) {
        gst::init().unwrap();
        let template = builtin(Kind::Source, "rtsp");
        let launch = |text: &str| {
            let mut params = Params::default();
            params.set("uri", "rtsp://camera.example/stream", "test");
            params.set("user", text, "test");
            params.set("password", text, "test");
            template.bind(&params).unwrap().launch().unwrap()
        };
        let (plain, odd) = (launch("a"), launch(&text));
        prop_assert_eq!(only(&odd, "rtspsrc").property::<String>("user-id"), text.clone());
        prop_assert_eq!(only(&odd, "rtspsrc").property::<String>("user-pw"), text);
        prop_assert_eq!(factories(&odd), factories(&plain));
    }

    #[test]
    fn no_text_gets_through_a_checked_type(text in nasty()) {
        let refused = |kind, name: &str, param: &str| {
            let mut params = required(&builtin(kind, name));
            params.set(param, text.as_str(), "test");
            builtin(kind, name).bind(&params)
        };
        prop_assert!(refused(Kind::Source, "test", "width").is_err());
        prop_assert!(refused(Kind::Source, "test", "is_live").is_err());
        prop_assert!(refused(Kind::Source, "test", "pattern").is_err());
        // What a host may look like leaves nothing that means anything to the parser.
        if let Ok(bound) = refused(Kind::Sink, "rtp", "host") {
            prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:%".contains(c)));
            prop_assert!(!bound.description().contains("host="));
        }
    }

    #[test]
    fn no_template_text_panics(text in "(#:? ?(param|case|live|records)? ?[a-z{}=:()|\" .!\n]{0,30}\n?){0,6}") {
        let _ = Template::parse(Kind::Source, "t", &text, "t.launch");
    }

    #[test]
    fn no_garbage_panics(text in any::<String>()) {
        let _ = Template::parse(Kind::Sink, "t", &text, "t.launch");
    }
}

#[test]
fn a_nul_is_refused() {
    let mut params = Params::default();
    params.set("path", "a\0b", "x.toml:2");
    assert!(
        builtin(Kind::Source, "file")
            .bind(&params)
            .unwrap_err()
            .to_string()
            .contains("expected a path (x.toml:2)")
    );
}
