//! The stack machine of the pickle protocol.

use std::collections::HashMap;
use std::ops::Range;

use super::{Global, Id, Node, StorageRef, TensorRef};
use crate::weights::error::Reason;

/// Runs `bytes` up to STOP: all objects, and the one on top.
pub(super) fn run(bytes: &[u8]) -> Result<(Vec<Node>, Id), Reason> {
    let mut machine = Machine {
        bytes,
        at: 0,
        op_at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        if let Some(root) = machine.step()? {
            return Ok((machine.nodes, root));
        }
    }
}

/// Knows the opcodes of protocols 2 to 5 that state dicts use.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    op_at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn refuse(&self, what: impl Into<String>) -> Reason {
        Reason::Pickle { at: self.op_at, what: what.into() }
    }

    fn take(&mut self, n: usize) -> Result<Range<usize>, Reason> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.refuse("it ends in the middle of an object"))?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn uint(&mut self, n: usize) -> Result<u64, Reason> {
        let range = self.take(n)?;
        Ok(self.bytes[range].iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    fn line(&mut self) -> Result<Range<usize>, Reason> {
        let rest = &self.bytes[self.at..];
        let len =
            rest.iter().position(|&b| b == b'\n').ok_or_else(|| self.refuse("a name without an end"))?;
        let range = self.take(len)?;
        self.take(1)?;
        Ok(range)
    }

    fn text(&self, range: &Range<usize>) -> Result<&str, Reason> {
        std::str::from_utf8(&self.bytes[range.clone()]).map_err(|_| self.refuse("text that is not UTF-8"))
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    /// Objects below the topmost mark belong to whoever set it.
    fn pop(&mut self) -> Result<Id, Reason> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.refuse("an object is missing on the stack"));
        }
        self.stack.pop().ok_or_else(|| self.refuse("an object is missing on the stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Reason> {
        let mark = self.marks.pop().ok_or_else(|| self.refuse("a mark is missing on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Id, Reason> {
        self.stack.last().copied().ok_or_else(|| self.refuse("an object is missing on the stack"))
    }

    fn remember(&mut self, key: u32) -> Result<(), Reason> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Reason> {
        let id =
            self.memo.get(&key).copied().ok_or_else(|| self.refuse(format!("memo {key} was never set")))?;
        self.stack.push(id);
        Ok(())
    }

    fn string(&mut self, len: u64) -> Result<(), Reason> {
        let len = usize::try_from(len).map_err(|_| self.refuse("an absurd length"))?;
        let range = self.take(len)?;
        self.text(&range)?;
        self.push(Node::Str(range));
        Ok(())
    }

    fn tuple(&mut self, n: usize) -> Result<(), Reason> {
        let mut ids = Vec::with_capacity(n);
        for _ in 0..n {
            ids.push(self.pop()?);
        }
        ids.reverse();
        self.push(Node::Tuple(ids));
        Ok(())
    }

    fn global(&mut self, module: &Range<usize>, name: &Range<usize>) -> Result<(), Reason> {
        let (module, name) = (self.text(module)?, self.text(name)?);
        let global = Global::named(module, name)
            .ok_or_else(|| Reason::ForeignGlobal { at: self.op_at, name: format!("{module}.{name}") })?;
        self.push(Node::Global(global));
        Ok(())
    }

    /// One opcode; the root when it is STOP.
    fn step(&mut self) -> Result<Option<Id>, Reason> {
        self.op_at = self.at;
        let op = self.uint(1)? as u8;
        match op {
            0x80 => {
                let protocol = self.uint(1)?;
                if !(2..=5).contains(&protocol) {
                    return Err(self.refuse(format!("protocol {protocol}, expected 2 to 5")));
                }
            }
            0x95 => self.take(8).map(drop)?,
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Node::None),
            0x88 | 0x89 => self.push(Node::Bool),
            b'K' => {
                let v = self.uint(1)? as i64;
                self.push(Node::Int(v));
            }
            b'M' => {
                let v = self.uint(2)? as i64;
                self.push(Node::Int(v));
            }
            b'J' => {
                let v = self.uint(4)? as u32;
                self.push(Node::Int(i64::from(v.cast_signed())));
            }
            0x8a => {
                let len = self.uint(1)? as usize;
                if len > 8 {
                    return Err(self.refuse("an integer of more than 64 bits"));
                }
                let raw = self.uint(len)?;
                let unused = 64 - 8 * len as u32;
                let v = if len == 0 { 0 } else { (raw << unused).cast_signed() >> unused };
                self.push(Node::Int(v));
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Float);
            }
            b'X' => {
                let len = self.uint(4)?;
                self.string(len)?;
            }
            0x8c => {
                let len = self.uint(1)?;
                self.string(len)?;
            }
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85..=0x87 => self.tuple(usize::from(op - 0x84))?,
            b't' => {
                let ids = self.pop_mark()?;
                self.push(Node::Tuple(ids));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            b'q' => {
                let key = self.uint(1)? as u32;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.uint(4)? as u32;
                self.remember(key)?;
            }
            0x94 => {
                let key = self.memo.len() as u32;
                self.remember(key)?;
            }
            b'h' => {
                let key = self.uint(1)? as u32;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.uint(4)? as u32;
                self.recall(key)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Str(module), Node::Str(name)) = (&self.nodes[module], &self.nodes[name]) else {
                    return Err(self.refuse("a global whose name is no text"));
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => {
                // State dicts carry `_metadata` as an attribute; nothing else may have state, and this is not needed.
                self.pop()?;
                let target = self.top()?;
                if !matches!(self.nodes[target], Node::Dict(_)) {
                    return Err(self.refuse("state set on something that is no dict"));
                }
            }
            _ => return Err(self.refuse(format!("opcode 0x{op:02x}, which a state dict has no use for"))),
        }
        Ok(None)
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), Reason> {
        let target = self.top()?;
        let Node::List(list) = &mut self.nodes[target] else {
            return Err(self.refuse("an item added to something that is no list"));
        };
        list.extend(items);
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), Reason> {
        let target = self.top()?;
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.refuse("a key without a value"));
        }
        let Node::Dict(dict) = &mut self.nodes[target] else {
            return Err(self.refuse("an item set on something that is no dict"));
        };
        dict.extend(pairs.map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    /// `("storage", type, key, location, numel)`.
    fn persistent(&mut self) -> Result<(), Reason> {
        let id = self.pop()?;
        let parts = match &self.nodes[id] {
            Node::Tuple(ids) => ids.iter().map(|&i| &self.nodes[i]).collect::<Vec<_>>(),
            _ => return Err(self.refuse("a persistent id that is no tuple")),
        };
        let [
            Node::Str(tag),
            Node::Global(Global::Storage(dtype)),
            Node::Str(key),
            Node::Str(_),
            Node::Int(numel),
        ] = parts.as_slice()
        else {
            return Err(self.refuse("a persistent id that is no storage"));
        };
        if self.text(tag)? != "storage" {
            return Err(self.refuse("a persistent id that is no storage"));
        }
        let numel = usize::try_from(*numel).map_err(|_| self.refuse("a storage of negative size"))?;
        let storage = StorageRef { key: key.clone(), dtype: *dtype, numel };
        self.push(Node::Storage(storage));
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), Reason> {
        let (args, callable) = (self.pop()?, self.pop()?);
        let (Node::Global(global), Node::Tuple(args)) = (&self.nodes[callable], &self.nodes[args]) else {
            return Err(self.refuse("a call of something that is no known function"));
        };
        let args: Vec<&Node> = args.iter().map(|&i| &self.nodes[i]).collect();
        let node = match (global, args.as_slice()) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            (
                Global::RebuildTensor,
                [Node::Storage(storage), Node::Int(offset), Node::Tuple(shape), Node::Tuple(strides), ..],
            ) => {
                let offset =
                    usize::try_from(*offset).map_err(|_| self.refuse("a negative storage offset"))?;
                let (shape, strides) = (self.extents(shape)?, self.extents(strides)?);
                if shape.len() != strides.len() {
                    return Err(self.refuse(format!("{} sizes and {} strides", shape.len(), strides.len())));
                }
                Node::Tensor(Box::new(TensorRef { storage: storage.clone(), offset, shape, strides }))
            }
            (Global::RebuildParameter, [Node::Tensor(tensor), ..]) => Node::Tensor(tensor.clone()),
            _ => return Err(self.refuse("a call with arguments that do not fit")),
        };
        self.push(node);
        Ok(())
    }

    /// Sizes or strides: at most eight, which bounds what copies of a tensor reference can cost.
    fn extents(&self, ids: &[Id]) -> Result<Vec<usize>, Reason> {
        if ids.len() > 8 {
            return Err(self.refuse(format!("a tensor of {} dimensions, expected at most 8", ids.len())));
        }
        ids.iter()
            .map(|&i| match &self.nodes[i] {
                Node::Int(v) => {
                    usize::try_from(*v).map_err(|_| self.refuse(format!("a size or stride of {v}")))
                }
                _ => Err(self.refuse("a size or stride that is no integer")),
            })
            .collect()
    }
}
