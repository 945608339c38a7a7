// Package probe makes one reading of the machine: its cards, its host memory, and what limits both.
//
// It is the only place that touches NVML and gopsutil, and their words end here: NVML's return codes leave as *Fault, its
// unsigned sizes as planner.Bytes. A reading holds no CUDA context and so takes no device memory. What a machine does not
// tell is a note in the reading, in a sentence for people; what it tells wrongly is an error. A machine without a card is
// a reading without cards, not an error.
//
// A reading is composed of small readers: a CardReader and a HostReader make a Prober (Machine), First picks among card
// readers, Cached keeps a reading for a while, Fixed always gives the same one.
package probe
