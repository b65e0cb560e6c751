//! The mutants: programs with exactly one thing wrong, and the checks that are meant to find it.

use crate::check::{Mutant, SUITES, Suite};
use crate::subject::Subject;

/// Every mutant with the suite that grades it.
pub fn all() -> impl Iterator<Item = (&'static Mutant, &'static Suite)> {
    SUITES.into_iter().flat_map(|suite| suite.mutants.iter().map(move |mutant| (mutant, suite)))
}

/// [`all`], built.
pub fn subjects() -> Vec<(Subject, &'static Suite)> {
    let program = harness::program("mutants").display().to_string();
    let subject = |mutant: &Mutant, suite: &Suite| {
        let call = |options: &[&str]| -> Vec<String> {
            let parts = [&*program, suite.name, mutant.name];
            parts.iter().chain(options).map(|part| part.to_string()).collect()
        };
        Subject {
            name: mutant.name.to_owned(),
            command: call(suite.mutant_options),
            client: match mutant.name.starts_with("client-") {
                true => call(suite.mutant_client),
                false => Vec::new(),
            },
            ..Subject::default()
        }
    };
    all().map(|(mutant, suite)| (subject(mutant, suite), suite)).collect()
}
