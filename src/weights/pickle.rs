//! A pickle reader that knows what a state dict is made of, and nothing else.
//!
//! - No object is ever constructed by name: the globals of [`Global`] are recognised. A training checkpoint keeps
//!   its callbacks and settings beside the state dict; those become [`Node::Opaque`], which is a name and nothing
//!   else. In the state dict itself such a name is an error: see [`Pickle::foreign_under`].
//! - Memory is bounded: every opcode makes at most one node, of which there may be [`MAX_NODES`], strings are ranges
//!   of the input, memo keys are a map and not an index.
//! - Nodes live in one arena, so self-reference costs nothing and is found by [`Pickle::check_acyclic`].

mod machine;
mod objects;

use std::collections::BTreeSet;
use std::ops::Range;

use super::dtype::Dtype;
use super::error::Reason;

/// Deepest nesting accepted; a state dict inside a training checkpoint needs about six.
const MAX_DEPTH: usize = 64;
/// Longest pickle accepted in bytes; the largest SAM checkpoint has 0.3 MB.
pub(super) const MAX_PICKLE: usize = 4 << 20;
/// Most objects accepted; the largest SAM with its optimizer state, as Lightning saves it, makes about 60,000.
const MAX_NODES: usize = 1 << 18;
/// Longest `module.name` accepted in bytes.
const MAX_NAME: usize = 512;

/// Most foreign names that are listed; a training run's callbacks and settings name some dozens.
const MAX_FOREIGN: usize = 256;
/// Most arguments of a call that is understood; rebuilding a tensor has seven.
const MAX_ARGUMENTS: usize = 8;

/// Index of a node in its arena.
pub(super) type Id = usize;

/// The Python objects that a state dict may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Self::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Dtype::BF16),
            ("torch", "DoubleStorage") => Self::Storage(Dtype::F64),
            ("torch", "LongStorage") => Self::Storage(Dtype::I64),
            ("torch", "IntStorage") => Self::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Self::Storage(Dtype::I16),
            ("torch", "CharStorage") => Self::Storage(Dtype::I8),
            ("torch", "ByteStorage") => Self::Storage(Dtype::U8),
            ("torch", "BoolStorage") => Self::Storage(Dtype::Bool),
            _ => return None,
        })
    }
}

/// A storage by its key in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StorageRef {
    pub key: Range<usize>,
    pub dtype: Dtype,
    pub numel: usize,
}

/// A view of a storage, in elements; nothing is checked against the storage yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorRef {
    pub storage: StorageRef,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A Python object that is not on the list: where it is named, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub at: usize,
    pub module: Range<usize>,
    pub name: Range<usize>,
}

/// One object of the pickle.
#[derive(Debug)]
pub(super) enum Node {
    /// Nothing of interest: None, a bool, a float, bytes, a large integer.
    Plain,
    Int(i64),
    Str(Range<usize>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<StorageRef>),
    Tensor(Box<TensorRef>),
    /// The name of something foreign.
    Foreign(Box<Foreign>),
    /// What calling it would have made.
    Opaque(Box<Foreign>),
}

/// A parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    root: Id,
    length: usize,
}

impl<'a> Pickle<'a> {
    /// Parses `bytes` up to STOP.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Reason> {
        if bytes.len() > MAX_PICKLE {
            return Err(Reason::Pickle {
                at: 0,
                what: format!("{} bytes, more than {MAX_PICKLE}", bytes.len()),
            });
        }
        Self::parse_front(bytes)
    }

    /// Parses the pickle that `bytes` begin with; what follows it is left alone.
    pub fn parse_front(bytes: &'a [u8]) -> Result<Self, Reason> {
        let bytes = bytes.get(..MAX_PICKLE).unwrap_or(bytes);
        let machine::Finished { nodes, root, length } = machine::run(bytes)?;
        let pickle = Self { bytes, nodes, root, length };
        pickle.check_acyclic()?;
        Ok(pickle)
    }

    /// Bytes up to and with STOP.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Every storage that is named in the pickle.
    pub fn storages(&self) -> impl Iterator<Item = &StorageRef> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// Foreign names in the pickle, wherever they are, each once; the first [`MAX_FOREIGN`] of them.
    pub fn foreign(&self) -> BTreeSet<String> {
        let names = self.nodes.iter().filter_map(|node| match node {
            Node::Foreign(foreign) => Some(self.name(foreign)),
            _ => None,
        });
        let mut found = BTreeSet::new();
        for name in names {
            found.insert(name);
            if found.len() >= MAX_FOREIGN {
                break;
            }
        }
        found
    }

    /// The first foreign name among everything that `ids` hold.
    pub fn foreign_under(&self, ids: impl IntoIterator<Item = Id>) -> Option<Reason> {
        let mut seen = vec![false; self.nodes.len()];
        let mut open: Vec<Id> = ids.into_iter().collect();
        open.reverse();
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id], true) {
                continue;
            }
            match &self.nodes[id] {
                Node::Foreign(foreign) | Node::Opaque(foreign) => {
                    return Some(Reason::ForeignGlobal { at: foreign.at, name: self.name(foreign) });
                }
                node => open.extend(children(node)),
            }
        }
        None
    }

    fn name(&self, foreign: &Foreign) -> String {
        format!("{}.{}", self.text(&foreign.module), self.text(&foreign.name))
    }

    /// The object the pickle stands for.
    pub fn root(&self) -> Id {
        self.root
    }

    /// Node `id`.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// Text of a string node or storage key; ranges are checked to be UTF-8 when they are made.
    pub fn text(&self, range: &Range<usize>) -> &'a str {
        self.bytes.get(range.clone()).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }

    /// Depth-first over an explicit stack, so a hostile pickle cannot exhaust ours.
    fn check_acyclic(&self) -> Result<(), Reason> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let children = |id: Id| children(&self.nodes[id]);
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut path = vec![(self.root, children(self.root))];
        marks[self.root] = Mark::Open;
        while let Some((id, rest)) = path.last_mut() {
            let Some(next) = rest.pop() else {
                marks[*id] = Mark::Done;
                path.pop();
                continue;
            };
            match marks[next] {
                Mark::Done => {}
                Mark::Open => return Err(Reason::Cycle),
                Mark::New if path.len() >= MAX_DEPTH => return Err(Reason::TooDeep(MAX_DEPTH)),
                Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, children(next)));
                }
            }
        }
        Ok(())
    }
}

fn children(node: &Node) -> Vec<Id> {
    match node {
        Node::Tuple(ids) | Node::List(ids) => ids.clone(),
        Node::Dict(pairs) => pairs.iter().flat_map(|&(k, v)| [k, v]).collect(),
        _ => Vec::new(),
    }
}
