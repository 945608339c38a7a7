// Package probe makes one reading of the machine: its cards, its host memory, and what limits both.
//
// It is the only package that calls NVML and gopsutil. It turns NVML's return codes into *Fault and its unsigned sizes into
// planner.Bytes. A reading holds no CUDA context and so takes no device memory. A figure that the machine does not tell is a note
// in the reading, a sentence for people. A figure that is wrong is an error. A machine without a card is a reading without cards,
// not an error.
//
// A reading is composed of small readers: a CardReader and a HostReader make a Prober (Machine), First picks among card
// readers, Cached keeps a reading for a while, Fixed always gives the same one.
package probe
