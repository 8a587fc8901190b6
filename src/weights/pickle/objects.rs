//! What a state dict may refer to and call: storages and the functions that make tensors of them.

use super::machine::Machine;
use super::{Global, Id, MAX_ARGUMENTS, MAX_NAME, Node, StorageRef, TensorRef};
use crate::weights::error::Reason;

impl Machine<'_> {
    /// `("storage", type, key, location, numel)`; before PyTorch 1.6 with the place in a larger storage behind it.
    pub(super) fn persistent(&mut self) -> Result<(), Reason> {
        let id = self.pop()?;
        let parts = match &self.nodes[id] {
            Node::Tuple(ids) if ids.len() <= MAX_ARGUMENTS => {
                ids.iter().map(|&i| &self.nodes[i]).collect::<Vec<_>>()
            }
            _ => return Err(self.refuse("a persistent id that is no short tuple")),
        };
        let [Node::Str(tag), kind, Node::Str(key), Node::Str(_), Node::Int(numel), view @ ..] =
            parts.as_slice()
        else {
            return Err(self.refuse("a persistent id that is no storage"));
        };
        if tag.len() > MAX_NAME || key.len() > MAX_NAME {
            return Err(self.refuse("a storage with a name of absurd length"));
        }
        if self.text(tag)? != "storage" || !matches!(view, [] | [Node::Plain]) {
            return Err(self.refuse("a persistent id that is no storage"));
        }
        let node = match kind {
            Node::Global(Global::Storage(dtype)) => {
                let numel = usize::try_from(*numel).map_err(|_| self.refuse("a storage of negative size"))?;
                Node::Storage(Box::new(StorageRef { key: key.clone(), dtype: *dtype, numel }))
            }
            Node::Foreign(name) | Node::Opaque(name) => Node::Opaque(name.clone()),
            _ => return Err(self.refuse("a persistent id that is no storage")),
        };
        self.push(node)
    }

    /// An object of a class: never made. State dicts have none, so only what a foreign name stands for is let past.
    pub(super) fn new_object(&mut self) -> Result<(), Reason> {
        let (_, class) = (self.pop()?, self.pop()?);
        // A class inside a class is what `getattr(Outer, "Inner")` gives: opaque.
        let (Node::Foreign(name) | Node::Opaque(name)) = &self.nodes[class] else {
            return Err(self.refuse("an object of something that is no class"));
        };
        let node = Node::Opaque(name.clone());
        self.push(node)
    }

    /// A call: of the few functions that state dicts are made with. The call of a foreign one is noted, not made.
    pub(super) fn reduce(&mut self) -> Result<(), Reason> {
        let (args, callable) = (self.pop()?, self.pop()?);
        let Node::Tuple(args) = &self.nodes[args] else {
            return Err(self.refuse("a call without arguments"));
        };
        let global = match &self.nodes[callable] {
            Node::Global(global) => global,
            Node::Foreign(name) | Node::Opaque(name) => {
                let node = Node::Opaque(name.clone());
                return self.push(node);
            }
            _ => return Err(self.refuse("a call of something that is no known function")),
        };
        if args.len() > MAX_ARGUMENTS {
            return Err(self.refuse("a call with arguments that do not fit"));
        }
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
                let storage = StorageRef::clone(storage);
                Node::Tensor(Box::new(TensorRef { storage, offset, shape, strides }))
            }
            (Global::RebuildParameter, [Node::Tensor(tensor), ..]) => Node::Tensor(tensor.clone()),
            // A tensor of a foreign element type is as foreign as the type.
            (Global::RebuildTensor | Global::RebuildParameter, [Node::Opaque(name), ..]) => {
                Node::Opaque(name.clone())
            }
            _ => return Err(self.refuse("a call with arguments that do not fit")),
        };
        self.push(node)
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
