//! A pickle reader that knows what a state dict is made of, and nothing else.
//!
//! - No object is ever constructed by name: the globals of [`Global`] are recognised, all others are an error.
//! - Memory is bounded by the length of the pickle: every opcode makes at most one node, strings are ranges of
//!   the input, memo keys are a map and not an index.
//! - Nodes live in one arena, so self-reference costs nothing and is found by [`Pickle::check_acyclic`].

mod machine;

use std::ops::Range;

use super::checkpoint::Dtype;
use super::error::Reason;

/// Deepest nesting accepted; a state dict inside a training checkpoint needs about six.
const MAX_DEPTH: usize = 64;
/// Longest pickle accepted in bytes; the largest SAM checkpoint has 0.3 MB.
pub(super) const MAX_PICKLE: usize = 4 << 20;

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

/// One object of the pickle.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool,
    Int(i64),
    Float,
    Str(Range<usize>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(StorageRef),
    Tensor(Box<TensorRef>),
}

/// A parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    root: Id,
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
        let (nodes, root) = machine::run(bytes)?;
        let pickle = Self { bytes, nodes, root };
        pickle.check_acyclic()?;
        Ok(pickle)
    }

    /// The object the pickle stands for.
    pub fn root(&self) -> &Node {
        &self.nodes[self.root]
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
        let children = |id: Id| -> Vec<Id> {
            match &self.nodes[id] {
                Node::Tuple(ids) | Node::List(ids) => ids.clone(),
                Node::Dict(pairs) => pairs.iter().flat_map(|&(k, v)| [k, v]).collect(),
                _ => Vec::new(),
            }
        };
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
