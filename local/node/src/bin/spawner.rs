//! The node's spawner as a program of its own, for tests and for programs that embed the node.

fn main() -> std::process::ExitCode {
    muster_node::spawner_main()
}
