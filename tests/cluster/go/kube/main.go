// Kube is all of Kubernetes in one program: kube <apiserver|controller-manager|scheduler|proxy|kubelet|kubectl> flags...
//
// The test cluster runs the real components without a container registry. Linked together from the published modules
// they are one 170 MB file that is built once; six programs would be six times that, and six links.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

const usage = "usage: kube apiserver|controller-manager|scheduler|proxy|kubelet|kubectl [flags]"

func main() {
	if len(os.Args) < 2 {
		fail()
	}
	name := os.Args[1]
	if name == "kubectl" {
		// kubectl reads os.Args itself, to find its plugins (kubectl-millpond) on PATH.
		os.Args = os.Args[1:]
		if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
			cmdutil.CheckErr(err)
		}
		return
	}
	component := command(name)
	if component == nil {
		fail()
	}
	os.Args = append([]string{"kube-" + name}, os.Args[2:]...)
	os.Exit(cli.Run(component))
}

func command(name string) *cobra.Command {
	switch name {
	case "apiserver":
		return apiserver.NewAPIServerCommand()
	case "controller-manager":
		return controllermanager.NewControllerManagerCommand()
	case "proxy":
		return proxy.NewProxyCommand()
	case "scheduler":
		return scheduler.NewSchedulerCommand()
	case "kubelet":
		return kubelet.NewKubeletCommand(context.Background())
	}
	return nil
}

func fail() {
	fmt.Fprintln(os.Stderr, usage)
	os.Exit(2)
}
