//! Every Rust file of the repository, read once.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// One Rust file.
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

/// All files, in the order of their paths.
pub(crate) fn all() -> &'static [Source] {
    static ALL: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let mut sources = Vec::new();
        for top in ["common", "server", "client", "tests", "fuzz"] {
            collect(&super::root(), top, &mut sources);
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources
    });
    &ALL
}

impl Source {
    /// `path:line: text` for each line of code, outside tests and comments, that contains one of `words`.
    pub(crate) fn lines_with(&self, words: &[&str]) -> Vec<String> {
        if Path::new(&self.path)
            .components()
            .any(|part| part.as_os_str() == "tests.rs")
        {
            return Vec::new();
        }
        // The tests are at the bottom of a file (CONTRIBUTING.md), so everything after is theirs.
        let end = self
            .text
            .find("#[cfg(test)]\nmod ")
            .unwrap_or(self.text.len());
        self.findings(&self.text[..end], words, |line| {
            line.split("//").next().unwrap_or_default().to_owned()
        })
    }

    /// The same for every line, comments and tests included.
    pub(crate) fn raw_lines_with(&self, words: &[&str]) -> Vec<String> {
        self.findings(&self.text, words, str::to_owned)
    }

    fn findings(
        &self,
        text: &str,
        words: &[&str],
        visible: impl Fn(&str) -> String,
    ) -> Vec<String> {
        let lines = text.lines().enumerate();
        let hits = lines.filter(|(_, line)| words.iter().any(|word| visible(line).contains(word)));
        hits.map(|(number, line)| format!("{}:{}: {}", self.path, number + 1, line.trim()))
            .collect()
    }
}

fn collect(root: &Path, relative: &str, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(root.join(relative)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{relative}/{name}");
        if entry.path().is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, sources);
            }
        } else if name.ends_with(".rs") {
            let text =
                fs::read_to_string(entry.path()).unwrap_or_else(|error| panic!("{path}: {error}"));
            sources.push(Source { path, text });
        }
    }
}
