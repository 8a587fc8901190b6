//! Pipeline templates: no injection, sound built-ins, honest refusals, and recordings that keep their times.
#![allow(clippy::unwrap_used)]

mod builtins;
mod injection;
mod recordings;
mod refusals;

use std::path::Path;

use sonomask::media::template::{Bound, Kind, Params, Template};

fn builtin(kind: Kind, name: &str) -> Template {
    Template::builtin(kind, name).unwrap().unwrap()
}

fn params(toml: &str) -> Params {
    Params::from_table(&toml.parse().unwrap(), Path::new(""), "test.toml:1")
}

fn bound(kind: Kind, name: &str, toml: &str) -> Bound {
    builtin(kind, name).bind(&params(toml)).unwrap()
}

/// Every parameter without a default gets a value.
fn required(template: &Template) -> Params {
    let mut params = Params::default();
    for spec in template.params().iter().filter(|p| p.default.is_none()) {
        let value = match spec.name.as_str() {
            "path" => "some file.mp4",
            "uri" if template.name() == "rtsp" => "rtsp://camera.example/stream",
            "uri" => "srt://127.0.0.1:7001",
            "host" => "127.0.0.1",
            other => panic!("no value for {other}"),
        };
        params.set(&spec.name, value, "test");
    }
    params
}
