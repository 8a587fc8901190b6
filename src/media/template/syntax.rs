//! The launch syntax as far as a template has to understand it: words, elements, and who owns which property.
//!
//! GStreamer does the real parsing. This reading only finds out which element a free-text parameter belongs to,
//! and refuses whatever it is not sure about, so that free text never has to be quoted.

/// One word of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    pub line: usize,
}

/// A mistake in a template's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub line: usize,
    pub what: String,
}

/// A property whose value is the parameter `param`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub element: String,
    pub factory: String,
    pub property: String,
    pub param: String,
}

/// A description with the free text taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Analysis {
    pub description: String,
    pub factories: Vec<String>,
    pub assignments: Vec<Assignment>,
    /// Name of the first element.
    pub first: String,
    /// Name of the last element.
    pub last: String,
}

/// A part of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Hole(&'a str),
}

/// Splits at blanks outside quotes. `line` is the number of the first line of `text`.
pub(super) fn words(text: &str, mut line: usize) -> Result<Vec<Word>, Mistake> {
    let mut out = Vec::new();
    let mut word = String::new();
    let (mut quote, mut escaped, mut begun) = (None, false, line);
    for c in text.chars() {
        if quote.is_none() && !escaped && c.is_whitespace() {
            if !word.is_empty() {
                out.push(Word { text: std::mem::take(&mut word), line: begun });
            }
        } else {
            if word.is_empty() {
                begun = line;
            }
            word.push(c);
            match (escaped, c) {
                (true, _) => escaped = false,
                (false, '\\') => escaped = true,
                (false, '"' | '\'') if quote == Some(c) => quote = None,
                (false, '"' | '\'') if quote.is_none() => quote = Some(c),
                _ => {}
            }
        }
        if c == '\n' {
            line += 1;
        }
    }
    if quote.is_some() || escaped {
        return Err(Mistake { line: begun, what: "a quote or backslash is left open at the end".to_owned() });
    }
    if !word.is_empty() {
        out.push(Word { text: word, line: begun });
    }
    Ok(out)
}

/// A parameter's name: lower case, digits, single underscores inside.
pub(super) fn is_param_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !text.contains("__")
}

/// Text and `{holes}` of a word. Braces around anything but a parameter's name are text: caps have lists in braces.
pub(super) fn pieces(word: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let (mut start, mut from) = (0, 0);
    while let Some(open) = word[from..].find('{').map(|i| from + i) {
        let Some(close) = word[open..].find('}').map(|i| open + i) else { break };
        let name = &word[open + 1..close];
        if is_param_name(name) {
            if start < open {
                out.push(Piece::Text(&word[start..open]));
            }
            out.push(Piece::Hole(name));
            start = close + 1;
            from = start;
        } else {
            from = open + 1;
        }
    }
    if start < word.len() {
        out.push(Piece::Text(&word[start..]));
    }
    out
}

/// The parameter that a word consists of, if it is nothing but `{param}`.
pub(super) fn sole_hole(word: &str) -> Option<&str> {
    match pieces(word).as_slice() {
        [Piece::Hole(name)] => Some(name),
        _ => None,
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

struct Element {
    factory: String,
    name: Option<String>,
    /// Index of the factory's word in the output.
    at: usize,
}

/// Finds the elements, and takes out every `property={param}`. Only free-text parameters may still be holes.
pub(super) fn analyse(words: &[Word]) -> Result<Analysis, Mistake> {
    let mut out: Vec<String> = Vec::new();
    let mut elements: Vec<Element> = Vec::new();
    let mut assigned: Vec<(usize, String, String)> = Vec::new();
    let (mut current, mut in_caps, mut linked): (Option<usize>, bool, bool) = (None, false, false);
    for Word { text, line } in words {
        let mistake = |what: String| Err(Mistake { line: *line, what });
        let hole = pieces(text).into_iter().find_map(|p| match p {
            Piece::Hole(name) => Some(name.to_owned()),
            Piece::Text(_) => None,
        });
        if text == "!" {
            (current, in_caps, linked) = (None, false, true);
            out.push(text.clone());
            continue;
        }
        let assignment =
            text.split_once('=').filter(|(name, _)| !in_caps && name.split("::").all(is_identifier));
        if let Some((property, value)) = assignment {
            let Some(element) = current else {
                return mistake(format!("{text:?} belongs to no element"));
            };
            if let Some(param) = sole_hole(value) {
                if matches!(property, "name" | "parent") || property.contains(':') {
                    return mistake(format!("the property {property:?} cannot be set from a text parameter"));
                }
                assigned.push((element, property.to_owned(), param.to_owned()));
                continue;
            }
            if property == "name" {
                if !is_identifier(value) {
                    return mistake(format!("the element name {value:?} must be letters, digits, _ and -"));
                }
                if let Some(e) = elements.get_mut(element) {
                    e.name = Some(value.to_owned());
                }
            }
        } else if !in_caps {
            if is_identifier(text) {
                elements.push(Element { factory: text.clone(), name: None, at: out.len() });
                current = Some(elements.len() - 1);
            } else if linked && text.contains('/') {
                (current, in_caps) = (None, true);
            } else if text
                .split_once('.')
                .is_some_and(|(a, b)| is_identifier(a) && (b.is_empty() || is_identifier(b)))
            {
                current = None;
            } else if hole.is_none() {
                return mistake(format!(
                    "cannot read {text:?}: expected an element, a property=value, caps after a \"!\", or a \"!\" with blanks around it"
                ));
            }
        }
        if let Some(param) = hole {
            return mistake(format!(
                "{{{param}}} is free text and must be the whole value of a property, \"location={{{param}}}\" for example; found {text:?}"
            ));
        }
        linked = false;
        out.push(text.clone());
    }
    if elements.is_empty() {
        return Err(Mistake {
            line: words.first().map_or(1, |w| w.line),
            what: "the description has no element".to_owned(),
        });
    }
    let last = elements.len() - 1;
    // Backwards, so that the indices of earlier words stay right.
    for (i, element) in elements.iter_mut().enumerate().rev() {
        let needed = i == 0 || i == last || assigned.iter().any(|(e, ..)| *e == i);
        if needed && element.name.is_none() {
            let name = format!("sonomask_e{i}");
            out.insert(element.at + 1, format!("name={name}"));
            element.name = Some(name);
        }
    }
    let name = |i: usize| elements.get(i).and_then(|e| e.name.clone()).unwrap_or_default();
    Ok(Analysis {
        description: out.join(" "),
        assignments: assigned
            .into_iter()
            .map(|(i, property, param)| Assignment {
                element: name(i),
                factory: elements.get(i).map(|e| e.factory.clone()).unwrap_or_default(),
                property,
                param,
            })
            .collect(),
        first: name(0),
        last: name(last),
        factories: elements.into_iter().map(|e| e.factory).collect(),
    })
}
