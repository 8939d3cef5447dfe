//! With libtorch, programs find its libraries where they were linked: nobody has to say so again when they are started.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(libraries) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", libraries.to_string_lossy());
        // The part for GPUs announces itself when it is loaded: no program asks for anything in it by name.
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed,-ltorch,--as-needed");
    }
}
