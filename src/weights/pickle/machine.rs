//! The stack machine of the pickle protocol.

use std::collections::HashMap;
use std::ops::Range;

use super::{Foreign, Global, Id, MAX_NAME, MAX_NODES, Node};
use crate::weights::error::Reason;

/// What a run leaves behind.
pub(super) struct Finished {
    pub nodes: Vec<Node>,
    /// The object on top at STOP.
    pub root: Id,
    /// Bytes read, STOP included.
    pub length: usize,
}

/// Runs `bytes` up to STOP.
pub(super) fn run(bytes: &[u8]) -> Result<Finished, Reason> {
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
            return Ok(Finished { nodes: machine.nodes, root, length: machine.at });
        }
    }
}

/// Knows the opcodes of protocols 2 to 5 that state dicts and the training states around them use.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    op_at: usize,
    pub(super) nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    pub(super) fn refuse(&self, what: impl Into<String>) -> Reason {
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

    pub(super) fn text(&self, range: &Range<usize>) -> Result<&str, Reason> {
        std::str::from_utf8(&self.bytes[range.clone()]).map_err(|_| self.refuse("text that is not UTF-8"))
    }

    pub(super) fn push(&mut self, node: Node) -> Result<(), Reason> {
        if self.nodes.len() >= MAX_NODES {
            return Err(self.refuse(format!("more than {MAX_NODES} objects")));
        }
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
        Ok(())
    }

    /// Objects below the topmost mark belong to whoever set it.
    pub(super) fn pop(&mut self) -> Result<Id, Reason> {
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
        if self.memo.len() > MAX_NODES {
            return Err(self.refuse(format!("more than {MAX_NODES} memo entries")));
        }
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
        self.push(Node::Str(range))
    }

    /// Something that is read past and never looked at.
    fn inert(&mut self, len: u64) -> Result<(), Reason> {
        let len = usize::try_from(len).map_err(|_| self.refuse("an absurd length"))?;
        self.take(len)?;
        self.push(Node::Plain)
    }

    fn tuple(&mut self, n: usize) -> Result<(), Reason> {
        let mut ids = Vec::with_capacity(n);
        for _ in 0..n {
            ids.push(self.pop()?);
        }
        ids.reverse();
        self.push(Node::Tuple(ids))
    }

    fn global(&mut self, module: &Range<usize>, name: &Range<usize>) -> Result<(), Reason> {
        // Nobody's name is that long; every use of it would be another copy in messages and lists.
        if module.len() + name.len() > MAX_NAME {
            return Err(self.refuse("a name of absurd length"));
        }
        let node = match Global::named(self.text(module)?, self.text(name)?) {
            Some(global) => Node::Global(global),
            None => {
                let foreign = Foreign { at: self.op_at, module: module.clone(), name: name.clone() };
                Node::Foreign(Box::new(foreign))
            }
        };
        self.push(node)
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
            b'N' => self.push(Node::Plain)?,
            0x88 | 0x89 => self.push(Node::Plain)?,
            b'K' => {
                let v = self.uint(1)? as i64;
                self.push(Node::Int(v))?;
            }
            b'M' => {
                let v = self.uint(2)? as i64;
                self.push(Node::Int(v))?;
            }
            b'J' => {
                let v = self.uint(4)? as u32;
                self.push(Node::Int(i64::from(v.cast_signed())))?;
            }
            0x8a => {
                let len = self.uint(1)? as usize;
                if len > 8 {
                    return self.inert(len as u64).map(|()| None);
                }
                let raw = self.uint(len)?;
                let unused = 64 - 8 * len as u32;
                let v = if len == 0 { 0 } else { (raw << unused).cast_signed() >> unused };
                self.push(Node::Int(v))?;
            }
            b'G' => self.inert(8)?,
            // Text of Python 2 and of Python 3.
            b'T' | b'X' => {
                let len = self.uint(4)?;
                self.string(len)?;
            }
            b'U' | 0x8c => {
                let len = self.uint(1)?;
                self.string(len)?;
            }
            0x8d => {
                let len = self.uint(8)?;
                self.string(len)?;
            }
            // Bytes and integers of any length.
            b'C' => {
                let len = self.uint(1)?;
                self.inert(len)?;
            }
            b'B' | 0x8b => {
                let len = self.uint(4)?;
                self.inert(len)?;
            }
            0x8e | 0x96 => {
                let len = self.uint(8)?;
                self.inert(len)?;
            }
            b')' => self.push(Node::Tuple(Vec::new()))?,
            0x85..=0x87 => self.tuple(usize::from(op - 0x84))?,
            b't' => {
                let ids = self.pop_mark()?;
                self.push(Node::Tuple(ids))?;
            }
            // A set is a list to us: nothing asks it whether it holds something.
            b']' | 0x8f => self.push(Node::List(Vec::new()))?,
            0x91 => {
                let ids = self.pop_mark()?;
                self.push(Node::List(ids))?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' | 0x90 => {
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
            b'0' => self.pop().map(drop)?,
            b'1' => self.pop_mark().map(drop)?,
            b'2' => {
                let id = self.top()?;
                self.stack.push(id);
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
            0x81 => self.new_object()?,
            0x92 => {
                self.pop()?;
                self.new_object()?;
            }
            b'b' => {
                // State dicts carry `_metadata` as an attribute, which is not needed; foreign objects are not made.
                self.pop()?;
                let target = self.top()?;
                if !matches!(self.nodes[target], Node::Dict(_) | Node::Opaque(_)) {
                    return Err(self.refuse("state set on something that is no dict"));
                }
            }
            _ => return Err(self.refuse(format!("opcode 0x{op:02x}, which a state dict has no use for"))),
        }
        Ok(None)
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), Reason> {
        let target = self.top()?;
        match &mut self.nodes[target] {
            Node::List(list) => list.extend(items),
            Node::Opaque(_) => {}
            _ => return Err(self.refuse("an item added to something that is no list")),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), Reason> {
        let target = self.top()?;
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.refuse("a key without a value"));
        }
        match &mut self.nodes[target] {
            Node::Dict(dict) => dict.extend(pairs.map(|pair| (pair[0], pair[1]))),
            Node::Opaque(_) => {}
            _ => return Err(self.refuse("an item set on something that is no dict")),
        }
        Ok(())
    }
}
