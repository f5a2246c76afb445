//! One file in the form that the rules need: its tokens without comments, strings and tests, and its comments.

use std::collections::BTreeSet;

/// A file, read.
pub(super) struct Source {
    tokens: Vec<Token>,
    comments: String,
    lines: usize,
    /// Modules that `#[cfg(test)]` declares without a body.
    test_modules: Vec<String>,
    /// Names that `use` imports from our own rooms: they hide a crate of the same name.
    bound: BTreeSet<String>,
}

/// A name, `::`, or one character. Strings, numbers and comments are no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Path,
    Mark(char),
    Line,
}

/// The module of a file: `src/shard/mod.rs` is `[shard]`, `src/log.rs` is `[log]`, files outside the library have the
/// room's name before them.
pub(super) fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = match path {
        "src/lib" => "lib",
        "src/main" => "cli",
        _ => match path.strip_prefix("src/") {
            Some(inside) => inside,
            None => path.strip_prefix("loadgen/src/").map_or(path, |_| "loadgen"),
        },
    };
    path.strip_suffix("/mod").unwrap_or(path).split('/').map(String::from).collect()
}

/// The target of a path that begins in our own crate, seen from `module`; `None` for other paths.
pub(super) fn resolve(module: &[String], path: &[String]) -> Option<Vec<String>> {
    match path.first()?.as_str() {
        "crate" | "tidings" => Some(path[1..].to_vec()).filter(|rest| !rest.is_empty()),
        "super" => {
            let supers = path.iter().take_while(|segment| *segment == "super").count();
            // Above the room: in inline modules this is one too far, which only tests use.
            let parent = &module[..module.len().saturating_sub(supers)];
            Some([parent, &path[supers..]].concat()).filter(|target| !target.is_empty())
        }
        _ => None,
    }
}

impl Source {
    pub(super) fn read(text: &str) -> Self {
        let (tokens, comments) = tokens(text);
        let (tokens, test_modules) = without_tests(tokens);
        let lines = tokens.iter().filter(|token| **token == Token::Line).count();
        let tokens: Vec<_> = tokens.into_iter().filter(|token| *token != Token::Line).collect();
        let mut source = Self { tokens, comments, lines, test_modules, bound: BTreeSet::new() };
        source.bound = source.bound_names();
        source
    }

    /// Number of lines without those of tests.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    pub(super) fn has_word(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| matches!(token, Token::Word(found) if found == word))
    }

    /// Whether the file has an `impl` of this type, inherent or of a trait.
    pub(super) fn implements(&self, name: &str) -> bool {
        let is = |token: Option<&Token>, word: &str| matches!(token, Some(Token::Word(found)) if found == word);
        (0..self.tokens.len()).any(|at| {
            is(self.tokens.get(at), name)
                && at
                    .checked_sub(1)
                    .is_some_and(|before| is(self.tokens.get(before), "impl") || is(self.tokens.get(before), "for"))
        })
    }

    /// Whether `name` is one of ours in this file, even if a crate has the same name.
    pub(super) fn binds(&self, name: &str) -> bool {
        self.bound.contains(name)
    }

    /// Every path of two segments or more, with `use` trees taken apart, and every `use` of one.
    pub(super) fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            at = self.path_at(at, &mut Vec::new(), &mut paths).max(at + 1);
        }
        paths
    }

    /// For the file at `path`: full paths of its test-only modules in files of their own.
    pub(super) fn test_modules(&self, path: &str) -> Vec<Vec<String>> {
        let module = module_of(path);
        let parent = if module == ["lib"] { Vec::new() } else { module };
        self.test_modules.iter().map(|name| [parent.as_slice(), std::slice::from_ref(name)].concat()).collect()
    }

    /// The first text in a comment that looks like the number of a ticket or a requirement.
    pub(super) fn ticket(&self) -> Option<String> {
        let words: Vec<&str> = self.comments.split(|c: char| c.is_whitespace() || "()[],.;:\"'`/".contains(c)).collect();
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        for (index, word) in words.iter().enumerate() {
            let id = word.strip_prefix(['R', 'D']).is_some_and(|rest| rest.len() <= 2 && is_number(rest));
            let hash = word.strip_prefix('#').is_some_and(is_number);
            let (kind, number) = match word.split_once(['-', '#']) {
                Some((kind, number)) => (kind, number),
                None => (*word, words.get(index + 1).map_or("", |next| next.trim_start_matches('#'))),
            };
            let named = ["issue", "ticket", "pr", "gh"].contains(&kind.to_ascii_lowercase().as_str()) && is_number(number);
            if id || hash || named {
                return Some((*word).to_owned());
            }
        }
        None
    }

    /// Reads the path that begins at token `at`, adds it to `paths` after `prefix`, and returns its end.
    fn path_at(&self, mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
        let depth = prefix.len();
        let used = at > 0 && self.tokens.get(at - 1) == Some(&Token::Word("use".into()));
        if depth == 0 && self.tokens.get(at) == Some(&Token::Path) {
            at += 1;
        }
        loop {
            match self.tokens.get(at) {
                Some(Token::Word(word)) => prefix.push(word.clone()),
                Some(Token::Mark('*')) if prefix.len() > depth || depth > 0 => prefix.push("*".into()),
                Some(Token::Mark('{')) if !prefix.is_empty() && self.tokens.get(at.wrapping_sub(1)) == Some(&Token::Path) => {
                    at = self.group_at(at + 1, prefix, paths);
                    prefix.truncate(depth);
                    return at;
                }
                _ => break,
            }
            at += 1;
            match self.tokens.get(at) {
                Some(Token::Path) => at += 1,
                _ => break,
            }
        }
        if prefix.last().is_some_and(|last| last == "self") {
            prefix.pop();
        }
        if prefix.len() > 1 || (prefix.len() == 1 && (used || depth > 0)) {
            paths.push(prefix.clone());
        }
        prefix.truncate(depth);
        at
    }

    /// The branches of a `use` tree, through the closing brace.
    fn group_at(&self, mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
        while let Some(token) = self.tokens.get(at) {
            match token {
                Token::Mark('}') => return at + 1,
                Token::Mark(',') => at += 1,
                // The name that follows is not part of any path.
                Token::Word(word) if word == "as" => at += 2,
                _ => at = self.path_at(at, prefix, paths).max(at + 1),
            }
        }
        at
    }

    fn bound_names(&self) -> BTreeSet<String> {
        let ours = |path: &Vec<String>| matches!(path[0].as_str(), "crate" | "self" | "super" | "tidings") && path.len() > 1;
        self.paths().into_iter().filter(ours).filter_map(|path| path.last().cloned()).collect()
    }
}

/// The tokens and the text of all comments.
fn tokens(text: &str) -> (Vec<Token>, String) {
    let mut tokens = Vec::new();
    let mut comments = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => {
                let length = rest.find('\n').unwrap_or(rest.len());
                comments.push_str(&rest[..length]);
                comments.push('\n');
                length
            }
            '/' if rest.starts_with("/*") => {
                let length = block_comment_length(rest);
                comments.push_str(&rest[..length]);
                tokens.extend(rest[..length].matches('\n').map(|_| Token::Line));
                length
            }
            _ => match literal_length(rest) {
                0 if first == '_' || first.is_alphabetic() => {
                    let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                    tokens.push(Token::Word(rest[..length].into()));
                    length
                }
                0 if first.is_ascii_digit() => rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len()),
                0 if rest.starts_with("::") => {
                    tokens.push(Token::Path);
                    2
                }
                0 => {
                    match first {
                        '\n' => tokens.push(Token::Line),
                        _ if first.is_whitespace() => {}
                        mark => tokens.push(Token::Mark(mark)),
                    }
                    first.len_utf8()
                }
                length => {
                    tokens.extend(rest[..length].matches('\n').map(|_| Token::Line));
                    length
                }
            },
        };
        rest = &rest[length..];
    }
    (tokens, comments)
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of the string or character literal that `text` begins with; 0 without one, as for a lifetime.
fn literal_length(text: &str) -> usize {
    let bare = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - bare.len();
    if prefix > 1 {
        return 0;
    }
    if let Some(raw) = bare.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            let closed = body.find(&end).map_or(body.len(), |at| at + end.len());
            return prefix + 1 + hashes + 1 + closed;
        }
        return 0;
    }
    if bare.starts_with('"') {
        return prefix + quoted_length(bare, '"');
    }
    if bare.starts_with('\'') && !text.starts_with('c') {
        let mut inside = bare.chars().skip(1);
        let is_character = matches!((inside.next(), inside.next()), (Some('\\'), _) | (Some(_), Some('\'')));
        return if is_character { prefix + quoted_length(bare, '\'') } else { 0 };
    }
    0
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Cuts out every item under `#[cfg(test)]`, and returns the modules among them that are in other files.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let attribute = ["cfg", "test"].map(|word| Token::Word(word.into()));
    let mut kept = Vec::with_capacity(tokens.len());
    let mut modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_test = tokens[at..].starts_with(&[Token::Mark('#'), Token::Mark('[')])
            && tokens.get(at + 2) == Some(&attribute[0])
            && tokens.get(at + 3) == Some(&Token::Mark('('))
            && tokens.get(at + 4) == Some(&attribute[1])
            && tokens.get(at + 5) == Some(&Token::Mark(')'));
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = item_end(&tokens, at);
        let item = &tokens[at..end];
        let declared = item.iter().position(|token| *token == Token::Word("mod".into()));
        if let (Some(declared), Some(Token::Mark(';'))) = (declared, item.last())
            && let Some(Token::Word(name)) = item.get(declared + 1)
        {
            modules.push(name.clone());
        }
        at = end;
    }
    (kept, modules)
}

/// The end of the item that begins with the attribute at `at`: its `;`, or the brace that closes its body.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    let mut in_use = false;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Word(word) if word == "use" && depth == 0 => in_use = true,
            Token::Mark('[' | '(') => brackets += 1,
            Token::Mark(']' | ')') => brackets = brackets.saturating_sub(1),
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 && brackets == 0 && !in_use {
                    return at;
                }
            }
            Token::Mark(';') if depth == 0 && brackets == 0 => return at,
            _ => {}
        }
    }
    at
}
