//! Teaching a prompt predictor from labelled pictures.

mod curves;
mod divide;
mod error;
mod events;
mod features;
mod fingerprint;
mod folder;
mod journal;
mod lesson;
mod loss;
mod material;
mod observer;
mod optimizer;
mod output;
mod pace;
mod predictor;
mod prompting;
mod random;
mod spec;
mod state;
mod target;
mod trainer;
mod tuning;
mod twins;

pub use error::TrainError;
pub use folder::{can_resume, held_out_list, is_begun};
pub use journal::{Epoch, Journal, JournalError, Validation};
pub use loss::{Answer, Balance, LossConfig, MaskLoss, Terms, Truth, interim_loss, loss};
pub use material::learned_from;
pub use observer::{Ending, Observer, Outcome};
pub use optimizer::{Group, Optimizer};
pub use spec::{DataSpec, DecoderTuning, PromptSampling, Split, StageSpec, TrainSpec};
pub use trainer::train;
