// Command bundle-check judges an OLM bundle by the rules of operator-sdk's `bundle validate`.
//
// It prints a line per finding and ends with 1 where one is an error; warnings alone end with 0.
package main

import (
	"fmt"
	"os"

	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	"github.com/operator-framework/api/pkg/validation/errors"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bundle-check DIRECTORY")
		os.Exit(2)
	}
	bundle, err := manifests.GetBundleFromDir(os.Args[1])
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	objects := []interface{}{bundle, bundle.CSV}
	for _, object := range bundle.Objects {
		objects = append(objects, object)
	}
	// What is asked by default, and what OperatorHub asks beside it.
	validators := append(validation.DefaultBundleValidators, validation.OperatorHubV2Validator,
		validation.StandardCapabilitiesValidator, validation.StandardCategoriesValidator,
		validation.ObjectValidator)
	failed := false
	for _, result := range validators.Validate(objects...) {
		for _, finding := range append(result.Errors, result.Warnings...) {
			failed = failed || finding.Level == errors.LevelError
			fmt.Printf("%s: %s: %s %s\n", finding.Level, finding.Type, finding.Field, finding.Detail)
		}
	}
	if failed {
		os.Exit(1)
	}
}
