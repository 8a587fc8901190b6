//! How good masks are: what a segmenter is asked of labelled pictures, what its answers score, and reports of it.

mod bootstrap;
mod case;
mod difference;
mod distance;
mod kept;
mod metrics;
mod prompting;
mod question;
mod region;
mod report;
mod run;
mod study;
mod summary;
mod tables;
mod views;

pub use bootstrap::{Interval, Share, bootstrap, bootstrap_shares};
pub use case::{Case, Distances};
pub use difference::{Compared, Difference, DifferenceError, differences};
pub use distance::{centroid_error, hd95};
pub use kept::{Kept, KeptError};
pub use metrics::{Overlap, Presence, presence_auc};
pub use prompting::{Prompting, PromptingError};
pub use question::{Answer, MAX_REGIONS, Question};
pub use region::{Region, regions};
pub use report::{Evaluation, Picture, Report, difference_table, ranked, table};
pub use run::{EvalError, Material, answer, evaluate, places};
pub use study::Study;
pub use summary::{ClassSummary, Figure, RULES, Scores, Spread, Summary};
pub use tables::{Cell, Row, Tables, Tuning};
pub use views::{MAX_VIEWS, views};
