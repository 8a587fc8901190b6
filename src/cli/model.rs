//! The model that a command works with: checked early, loaded once, given back between runs.

use parking_lot::Mutex;

use crate::pipeline::ModelFactory;
use crate::segment::{self, ModelSpec, Resolved, Segmenter};

/// Loads the model when first asked, and keeps it between the runs of a batch.
pub struct SharedModel {
    spec: ModelSpec,
    device: Resolved,
    kept: Mutex<Option<Box<dyn Segmenter>>>,
}

impl SharedModel {
    /// Nothing is loaded yet.
    pub fn new(spec: ModelSpec, device: Resolved) -> Self {
        Self { spec, device, kept: Mutex::default() }
    }

    /// Loads the model now, so that a wrong path or device is an error before anything is written.
    ///
    /// # Errors
    /// Whatever keeps the model from being loaded.
    pub fn preload(&self) -> Result<(), String> {
        let model = self.make()?;
        self.give_back(model);
        Ok(())
    }
}

impl ModelFactory for SharedModel {
    fn make(&self) -> Result<Box<dyn Segmenter>, String> {
        if let Some(model) = self.kept.lock().take() {
            return Ok(model);
        }
        segment::load(&self.spec, &self.device).map_err(|e| e.to_string())
    }

    fn give_back(&self, model: Box<dyn Segmenter>) {
        *self.kept.lock() = Some(model);
    }
}
