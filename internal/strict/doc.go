// Package strict reads JSON that others wrote and takes nothing that is wrong: no unknown or doubled field, no null, no
// fraction or huge number where a size belongs, nothing behind the document. Whatever it refuses it names by its field, and
// says what to give instead.
package strict
