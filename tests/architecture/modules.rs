//! The modules of the library, read from its sources with `syn`: which file refers to which.
//!
//! A path is resolved as the compiler does it: through child modules, through `use` and `pub use` (also renamed ones
//! and globs), and through `super` and `self`. Code with `#[cfg(test)]` is left out, wherever it stands in a file.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// A module's path below the crate, such as `["tree", "extract"]`; empty for `lib.rs`.
pub type ModulePath = Vec<String>;

/// The modules of a crate, without tests.
#[derive(Default)]
pub struct Modules {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Default)]
struct Module {
    /// The source file, relative to `src/`.
    file: PathBuf,
    /// Names that are imported by `use`, with their paths.
    aliases: BTreeMap<String, Vec<String>>,
    /// The modules that are imported by `use …::*`.
    globs: Vec<Vec<String>>,
    /// Names that are defined here.
    items: BTreeSet<String>,
    /// Paths that the code refers to. Re-exports are not among them.
    references: BTreeSet<Vec<String>>,
    /// Paths that are re-exported with `pub use`.
    reexports: BTreeSet<Vec<String>>,
}

impl Modules {
    /// Reads `lib.rs` and every module that it declares, except for those with `#[cfg(test)]` and the program.
    pub fn read(src: &Path) -> Self {
        let mut sources = BTreeMap::new();
        collect(src, Path::new("lib.rs"), &mut Vec::new(), &mut sources);
        Self::parse(sources.into_iter().map(|(path, (file, text))| (path, file, text)))
    }

    /// Takes sources as triples of module path, file and text.
    pub fn parse(sources: impl IntoIterator<Item = (ModulePath, PathBuf, String)>) -> Self {
        let mut modules = Self::default();
        for (path, file, text) in sources {
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            modules.add(path, &file, &parsed.items);
        }
        modules
    }

    fn add(&mut self, path: ModulePath, file: &Path, items: &[syn::Item]) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            if let Some(name) = item_name(item) {
                module.items.insert(name);
            }
            match item {
                syn::Item::Use(item) => {
                    let is_public = !matches!(item.vis, syn::Visibility::Inherited);
                    module.add_use(&item.tree, &mut Vec::new(), is_public);
                }
                syn::Item::Mod(inline) => {
                    let mut below = path.clone();
                    below.push(inline.ident.to_string());
                    if let Some((_, items)) = &inline.content {
                        self.add(below, file, items);
                    }
                }
                _ => References(&mut module.references).visit_item(item),
            }
        }
        self.modules.insert(path, module);
    }

    /// The files, relative to `src/`.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files: BTreeSet<_> = self.modules.values().map(|module| module.file.as_path()).collect();
        files.into_iter()
    }

    /// Returns the references between files, without re-exports.
    pub fn references(&self) -> BTreeSet<Reference> {
        self.resolved(|module| {
            let imports = module.aliases.values().filter(|path| !module.reexports.contains(*path));
            module.references.iter().chain(imports)
        })
    }

    /// Returns the re-exports as references.
    pub fn reexports(&self) -> BTreeSet<Reference> {
        self.resolved(|module| module.reexports.iter())
    }

    fn resolved<'a, I: Iterator<Item = &'a Vec<String>>>(
        &'a self,
        paths: impl Fn(&'a Module) -> I,
    ) -> BTreeSet<Reference> {
        let mut found = BTreeSet::new();
        for (path, module) in &self.modules {
            for named in paths(module).chain(&module.globs) {
                for target in self.visited(path, named) {
                    let to = self.modules[&target].file.clone();
                    if to != module.file {
                        let from = module.file.clone();
                        found.insert(Reference { from, to, target, path: named.join("::") });
                    }
                }
            }
        }
        found
    }

    /// Returns the modules of a path: the one that defines its last name, and those on the way to it.
    fn visited(&self, from: &ModulePath, path: &[String]) -> BTreeSet<ModulePath> {
        let mut visited = BTreeSet::new();
        self.resolve(from, path, &mut visited, 0);
        visited
    }

    fn resolve(&self, from: &ModulePath, path: &[String], visited: &mut BTreeSet<ModulePath>, depth: u32) {
        let mut at = from.clone();
        let mut rest = path;
        while let [first, tail @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "super" => _ = at.pop(),
                "self" => {}
                _ => break,
            }
            rest = tail;
        }
        let is_relative = rest.len() == path.len();
        while let Some((name, tail)) = rest.split_first() {
            let mut below = at.clone();
            below.push(name.clone());
            let Some(module) = self.modules.get(&at) else { return };
            if self.modules.contains_key(&below) {
                at = below;
                rest = tail;
                continue;
            }
            if depth < 16 {
                if let Some(alias) = module.aliases.get(name)
                    && *alias != path
                {
                    let whole: Vec<_> = alias.iter().chain(tail).cloned().collect();
                    return self.resolve(&at, &whole, visited, depth + 1);
                }
                if !module.items.contains(name) {
                    for glob in &module.globs {
                        let whole: Vec<_> = glob.iter().chain(rest).cloned().collect();
                        self.resolve(&at, &whole, visited, depth + 1);
                    }
                }
            }
            if module.items.contains(name) {
                visited.insert(at);
                return;
            }
            // A name of another crate or of the prelude, or an item of the last module that was found.
            if is_relative && at == *from {
                return;
            }
            break;
        }
        if self.modules.contains_key(&at) && at != *from {
            visited.insert(at);
        }
    }
}

/// A reference of one file to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub from: PathBuf,
    pub to: PathBuf,
    /// The file that the reference leads to.
    pub target: ModulePath,
    /// The path as written.
    pub path: String,
}

impl Module {
    fn add_use(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>, is_public: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use(&path.tree, prefix, is_public);
                prefix.pop();
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                let alias = prefix.last().cloned().unwrap_or_default();
                self.alias(alias, prefix.clone(), is_public);
            }
            syn::UseTree::Name(name) => {
                let path = [prefix.as_slice(), &[name.ident.to_string()]].concat();
                self.alias(name.ident.to_string(), path, is_public);
            }
            syn::UseTree::Rename(rename) => {
                let mut path = prefix.clone();
                if rename.ident != "self" {
                    path.push(rename.ident.to_string());
                }
                self.alias(rename.rename.to_string(), path, is_public);
            }
            syn::UseTree::Glob(_) => self.globs.push(prefix.clone()),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, prefix, is_public);
                }
            }
        }
    }

    fn alias(&mut self, name: String, path: Vec<String>, is_public: bool) {
        if is_public {
            self.reexports.insert(path.clone());
        }
        self.aliases.insert(name, path);
    }
}

/// Collects the paths in code, also in the arguments of macros and in `use` inside of functions.
struct References<'a>(&'a mut BTreeSet<Vec<String>>);

impl Visit<'_> for References<'_> {
    fn visit_path(&mut self, path: &syn::Path) {
        self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.0.extend(names(item));
    }

    fn visit_macro(&mut self, called: &syn::Macro) {
        self.visit_path(&called.path);
        self.tokens(called.tokens.clone());
    }

    fn visit_item(&mut self, item: &syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_attribute(&mut self, _: &syn::Attribute) {}

    fn visit_visibility(&mut self, _: &syn::Visibility) {}
}

impl References<'_> {
    /// Paths in tokens: identifiers with `::` between them.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.0.insert(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.0.insert(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.0.insert(path);
        self.0.remove(&Vec::new());
    }
}

/// Returns the paths of a `use`.
pub fn names(item: &syn::ItemUse) -> Vec<Vec<String>> {
    let mut module = Module::default();
    module.add_use(&item.tree, &mut Vec::new(), false);
    module.aliases.into_values().chain(module.globs).collect()
}

/// Reads a file and the files of the modules that it declares.
fn collect(
    src: &Path,
    file: &Path,
    path: &mut ModulePath,
    sources: &mut BTreeMap<ModulePath, (PathBuf, String)>,
) {
    let text = fs::read_to_string(src.join(file))
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    sources.insert(path.clone(), (file.to_owned(), text));
    for item in &parsed.items {
        let syn::Item::Mod(module) = item else { continue };
        if module.content.is_some() || is_for_tests(&module.attrs) {
            continue;
        }
        path.push(module.ident.to_string());
        let below: PathBuf = path.iter().collect();
        let (flat, nested) = (below.with_extension("rs"), below.join("mod.rs"));
        collect(src, if src.join(&flat).exists() { &flat } else { &nested }, path, sources);
        path.pop();
    }
}

/// Returns `true` if an item exists in tests only: `#[test]` or `#[cfg(test)]`, also within `all(…)`.
pub fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = attribute.meta.require_list().map(|list| list.tokens.to_string());
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && condition.is_ok_and(|text| text == "test" || text.starts_with("all (test")))
    })
}

pub fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn item_name(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
